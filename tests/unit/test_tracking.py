"""Records are sent to a real MLflow SQLite store, which is read back with plain SQL."""

import json
import shutil
import subprocess
import time

import pytest
from tracked import digest, python, query, run_of, tags, write

from entropy_mechanism import tracking
from entropy_mechanism.paths import ARTIFACT_LIMIT_VARIABLE


def test_missing_values_stay_in_the_series_and_are_not_sent(results):
    series = write(
        results / "store/f00d/metrics.jsonl",
        '{"step": 1, "entropy/mean": 0.5, "law/residual": null, "rate": NaN, "top": Infinity}\n'
        '{"step": 2, "entropy/mean": 0.25, "note": "text"}\n'
        '{"step": 3, "entropy/mean": 0.1',
    )
    with tracking.stage("train", "x", results=results, metrics_file=series) as record:
        record.metrics({"pass@8": 1, "none": None, "nan": float("nan")}, 7)
        with pytest.raises(ValueError, match="reserved"):
            record.metric("step", 1.0)
    own = (results / "records/train" / f"{record.record_id}.metrics.jsonl").read_text()
    assert {"step": 7, "pass@8": 1.0, "none": None, "nan": None}.items() <= json.loads(own).items()
    assert tracking.sync(results).points == 3
    points = query(results, "select key, step, value, is_nan from metrics order by key, step")
    assert points == [("entropy/mean", 1, 0.5, 0), ("entropy/mean", 2, 0.25, 0), ("pass_8", 7, 1.0, 0)]


def test_sync_sends_tree_params_points_tags_and_files_once(results, monkeypatch):
    monkeypatch.setenv(tracking.INVOCATION_VARIABLE, "night-1")
    monkeypatch.setenv(ARTIFACT_LIMIT_VARIABLE, "1")
    params = {"method": {"name": "kl_cov", "k": 2e-3}, "long": "x" * 9000, "a#b": 1, "a@b": 2}
    params |= {f"p{i}": i for i in range(230)}
    small, large = results / "smoke/analysis/law.json", results / "smoke/data/big.json"
    with tracking.stage("fit", "law", results=results, params=params, outputs=[small, large]) as record:
        write(small, '{"a": 1}')
        write(large, "x" * (2**20 + 1))
        for step in range(1500):
            record.metrics({"loss": step / 3, "grad/norm": -step}, step)
    first = tracking.sync(results)
    assert (first.points, first.pending, first.error) == (3000, 0, None)
    second = tracking.sync(results)
    assert (second.sent, second.points, second.artifacts, second.pending) == (0, 0, 0, 0)

    experiment, run = tracking.run_ids(results)[record.record_id]
    assert run == run_of(results, record.record_id)
    ((parent,),) = query(results, "select run_uuid from runs where name = 'night-1'")
    found = tags(results, run)
    assert found["mlflow.parentRunId"] == parent
    assert (found["stage"], found["key"]) == ("fit", "law")
    assert found["sha256.smoke/analysis/law.json"] == digest('{"a": 1}')
    stored = dict(query(results, "select key, value from params where run_uuid = ?", run))
    assert len(stored) == 235
    assert (stored["method.name"], stored["method.k"]) == ("kl_cov", "0.002")
    assert stored["long"] == "x" * 5999 + "…"
    assert {stored["a_b"], stored["a_b-2"]} == {"1", "2"}
    points = query(results, "select key, step, value from metrics where run_uuid = ?", run)
    expected = [("loss", step, step / 3) for step in range(1500)]
    assert sorted(points) == sorted(expected + [("grad/norm", step, -step) for step in range(1500)])
    status, start, end = query(results, "select status, start_time, end_time from runs where run_uuid = ?", run)[0]
    assert status == "FINISHED"
    assert abs(start / 1000 - time.time()) < 60
    assert start <= end
    folder = results / "mlartifacts" / run / "artifacts"
    assert json.loads((folder / "record.json").read_text())["record_id"] == record.record_id
    assert (folder / "outputs/smoke/analysis/law.json").read_text() == '{"a": 1}'
    assert not (folder / "outputs/smoke/data").exists()
    assert query(results, "select experiment_id from runs where run_uuid = ?", run) == [(int(experiment),)]


def test_a_file_replaced_before_it_was_sent_is_not_passed_off_as_the_recorded_one(results):
    path = results / "smoke/analysis/law.json"
    with tracking.stage("fit", "law", results=results, outputs=[path]) as record:
        write(path, "1")
    write(path, "2")
    tracking.sync(results)
    folder = results / "mlartifacts" / run_of(results, record.record_id) / "artifacts"
    assert [item.name for item in folder.iterdir()] == ["record.json"]


def test_a_new_store_gets_everything_again(results, empty_store):
    with tracking.stage("fit", "law", results=results):
        pass
    assert tracking.sync(results).sent == 1
    time.sleep(0.01)
    shutil.copy(empty_store, results / "other.db")
    assert tracking.sync(results, f"sqlite:///{results}/other.db").sent == 1
    assert tracking.sync(results, f"sqlite:///{results}/other.db").sent == 0
    assert tracking.sync(results, f"sqlite:///{results}/other.db", resend=True).sent == 1


def test_a_resumed_series_continues_in_the_run_of_the_last_attempt_only(results):
    series = results / "store/f00d/metrics.jsonl"
    write(series, "".join(f'{{"step": {step}, "loss": 1}}\n' for step in range(3)))
    with tracking.stage("train", "x", results=results, metrics_file=series):
        tracking.sync(results)  # sent while it runs, as by the follower
    first = tracking.latest_records(results)[0].record_id
    with tracking.stage("train", "x", results=results, metrics_file=series) as second, series.open("a") as lines:
        lines.write('{"step": 3, "loss": 1}\n')
    tracking.sync(results)
    for record_id, count in ((first, 3), (second.record_id, 4)):
        steps = query(
            results, "select step from metrics where run_uuid = ? order by step", run_of(results, record_id)
        )
        assert [step for (step,) in steps] == list(range(count))


FOLLOWER = """
import sys
from entropy_mechanism.tracking import follow
follow(sys.argv[1], None, "entropy-mechanism", "night-1", int(sys.argv[2]), interval=0.2)
"""


@pytest.mark.parametrize("end", ["finish", "parent", "sigterm"])
def test_the_follower_sends_while_the_workflow_runs_and_ends_with_it(results, monkeypatch, end):
    monkeypatch.setenv(tracking.INVOCATION_VARIABLE, "night-1")
    parent = subprocess.Popen(["sleep", "60"])
    follower = python(FOLLOWER, results, parent.pid)
    try:
        with tracking.stage("train", "x", results=results) as record:
            for step in (0, 1):
                record.metric("loss", 1.0, step)
                deadline = time.monotonic() + 20
                while len(query(results, "select 1 from metrics")) <= step and time.monotonic() < deadline:
                    time.sleep(0.1)
                assert len(query(results, "select 1 from metrics")) == step + 1
            record.metric("loss", 1.0, 2)
        if end == "finish":
            result = tracking.finish(results, None, tracking.EXPERIMENT, "night-1", "FAILED")
            assert (result.pending, result.error) == (0, None)
        elif end == "parent":
            parent.kill()
        else:
            follower.terminate()
        assert follower.wait(20) == 0
    finally:
        for process in (parent, follower):
            process.kill()
            process.wait()
        follower.stdout.close()
    assert query(results, "select step from metrics order by step") == [(0,), (1,), (2,)]
    status = dict(query(results, "select name, status from runs"))
    workflow = {"finish": "FAILED", "parent": "KILLED", "sigterm": "RUNNING"}[end]
    assert status == {"train x": "FINISHED", "night-1": workflow}
    assert tags(results, run_of(results, record.record_id))["stage"] == "train"


def test_a_mistyped_results_folder_is_not_created(tmp_path):
    assert "nothing was recorded" in tracking.sync(tmp_path / "result").error
    assert not (tmp_path / "result").exists()
