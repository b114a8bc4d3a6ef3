"""The audit finds every file that is not as it was recorded."""

import pytest
from tracked import write

from entropy_mechanism import cli, tracking


def test_audit_finds_a_flipped_byte_a_missing_file_and_an_unrecorded_one(results):
    run, data, model = results / "smoke/runs/a", results / "smoke/data", results / "smoke/models/m"
    with tracking.stage("train", "a", results=results, outputs=[run / "metrics.parquet"]):
        write(run / "metrics.parquet", "first")
    with tracking.stage("prepare", "x", results=results, outputs=[data / "x.parquet", model]) as record:
        write(data / "x.parquet", "rows")
        write(model / "weights", "abc")
        record.artifact(write(results / "smoke/analysis/notes.md", "n"))
    with tracking.stage("train", "a", results=results, outputs=[run / "metrics.parquet"]):
        write(run / "metrics.parquet", "second")
    write(run / "gave-up.json", "{}")  # of the attempts before
    assert tracking.audit(results) == []
    write(model / "weights", "abd")
    (data / "x.parquet").unlink()
    write(results / "smoke/figures/fig11.pdf", "by hand")
    write(results / "store/f00d/weights", "not audited")
    write(run / "metrics.parquet", "third")
    assert [(finding.kind, finding.path) for finding in tracking.audit(results)] == [
        ("missing", "smoke/data/x.parquet"),
        ("unrecorded", "smoke/figures/fig11.pdf"),
        ("changed", "smoke/models/m/weights"),
        ("changed", "smoke/runs/a/metrics.parquet"),
    ]
    with tracking.stage("train", "a", results=results, outputs=[run / "metrics.parquet"]):
        assert "smoke/runs/a/metrics.parquet" not in [found.path for found in tracking.audit(results)]
    write(results / "records/train/20200101T000000.000000Z-00000000.json", "{")
    assert [found.kind for found in tracking.audit(results)].count("unreadable") == 1


def test_a_folder_without_records_is_an_error_and_not_a_clean_audit(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["audit", "--results", str(tmp_path / "nowhere")])
    assert caught.value.code == (
        f"error: --results: {tmp_path / 'nowhere'} has no folder 'records', so nothing was recorded there"
    )
    assert capsys.readouterr().out == ""
