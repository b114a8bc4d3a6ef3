"""What MLflow holds brings a results folder back: against a real SQLite store with its artifacts."""

import hashlib
import os
import shutil
import sqlite3

import pytest

from entropy_mechanism import tracking
from entropy_mechanism.paths import ARTIFACT_LIMIT_VARIABLE
from entropy_mechanism.stages.restore import restore as restore_stage
from entropy_mechanism.tracking import restore as module
from entropy_mechanism.tracking.restore import restore


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def stage(results, name, key, inputs=(), outputs=None, artifacts=()):
    """Execute a stage that writes `outputs`, a mapping from path to content, and keeps `artifacts`."""
    paths = [results / path for path in outputs]
    with tracking.stage(
        name, key, results=results, inputs=[results / path for path in inputs], outputs=paths
    ) as record:
        for path, content in zip(paths, outputs.values(), strict=True):
            if isinstance(content, dict):
                for inside, text in content.items():
                    write(path / inside, text)
            else:
                write(path, content)
        for path in artifacts:
            record.artifact(results / path)
        record.metric("loss", 0.5, 3)
    return record.record_id


@pytest.fixture
def made(results, monkeypatch):
    """Three stages of one invocation, with binary files, a folder, and weights in the store; sent to MLflow."""
    monkeypatch.setenv(tracking.INVOCATION_VARIABLE, "night-1")
    stage(results, "prepare", "x", outputs={"e/data/x.parquet": b"\x00\x01data", "e/data/x.json": "{}"})
    model = {"config.json": "{}", "sub/weights.safetensors": b"\xff" * 3000}
    stage(results, "make_model", "m", outputs={"e/models/m": model})
    write(results / "store/f/final/weights.safetensors", b"\xfe" * 3000)
    write(results / "store/f/done.json", "done")
    stage(
        results,
        "train",
        "r",
        inputs=["e/data/x.parquet", "e/models/m"],
        outputs={"e/runs/r/manifest.json": '{"a": 1}', "e/runs/r/metrics.parquet": b"PAR1"},
        artifacts=["store/f/final", "store/f/done.json"],
    )
    stage(results, "fit", "r", inputs=["e/runs/r/metrics.parquet"], outputs={"e/analysis/r/law.parquet": b"law"})
    monkeypatch.delenv(tracking.INVOCATION_VARIABLE)
    tracking.finish(results, None, tracking.EXPERIMENT, "night-1", "FINISHED")
    return results


def uri(results):
    return tracking.default_tracking_uri(results)


def contents(results):
    """Path -> bytes of everything but MLflow's own files and the notes of a sender."""
    return {
        path.relative_to(results).as_posix(): path.read_bytes()
        for path in results.rglob("*")
        if path.is_file()
        and not path.is_relative_to(results / "mlartifacts")
        and path.name not in ("mlflow.db", "mlflow.json", ".lock")
    }


def age(results, path):
    return (results / path).stat().st_mtime_ns


def test_everything_comes_back_with_every_byte(made, tmp_path):
    copy = tmp_path / "elsewhere/results"
    done = restore(copy, uri(made))
    assert contents(copy) == contents(made)
    files = [path for path in contents(made) if not path.startswith("records/")]
    assert (done.records, done.placed, done.present) == (4, len(files), 0)
    assert (done.kept, done.damaged, done.absent, done.without_record) == ((), (), (), ())
    assert tracking.audit(copy) == []
    assert {path.name for path in copy.iterdir()} == {"e", "store", "records"}
    before = {path: age(copy, path) for path in files}
    again = restore(copy, uri(made))
    assert (again.placed, again.present) == (0, len(files))
    assert {path: age(copy, path) for path in files} == before


def test_a_restored_folder_knows_its_runs_and_sends_nothing_again(made, tmp_path):
    copy = tmp_path / "copy"
    restore(copy, uri(made))
    assert tracking.run_ids(copy) == tracking.run_ids(made)
    assert tracking.sync(copy, uri(made)) == tracking.SyncResult()
    (copy / "records/mlflow.json").unlink()
    sent = tracking.sync(copy, uri(made))
    assert sent.error is None
    assert sent.artifacts == 2 * 4  # each record and its series; of outputs the runs have all
    assert tracking.run_ids(copy) == tracking.run_ids(made)


def test_what_was_made_is_never_older_than_what_it_was_made_from(made, tmp_path):
    """The data set is made again, with the same bytes, after everything that was made from it."""
    stage(made, "prepare", "x", outputs={"e/data/x.parquet": b"\x00\x01data", "e/data/x.json": "{}"})
    tracking.sync(made)
    copy = tmp_path / "copy"
    restore(copy, uri(made))
    order = ["e/data/x.parquet", "e/runs/r/manifest.json", "e/analysis/r/law.parquet"]
    times = [age(copy, path) for path in order]
    assert times == sorted(times)
    assert age(copy, "e/models/m/config.json") <= age(copy, "e/runs/r/metrics.parquet") == times[1]
    newest = max(tracking.latest_records(made, "prepare"), key=lambda record: record.started)
    assert times[0] == pytest.approx(age(made, "e/data/x.parquet"), abs=5e8)
    assert newest.ended > tracking.latest_records(made, "fit")[0].ended


def test_the_newest_finished_execution_is_restored(made, tmp_path):
    stage(made, "fit", "r", inputs=["e/runs/r/metrics.parquet"], outputs={"e/analysis/r/law.parquet": b"new law"})
    with pytest.raises(ValueError, match="not now"):
        stage_that_fails(made)
    tracking.sync(made)
    copy = tmp_path / "copy"
    assert restore(copy, uri(made)).records == 6
    assert (copy / "e/analysis/r/law.parquet").read_bytes() == b"new law"
    assert age(copy, "e/analysis/r/law.parquet") > age(copy, "e/runs/r/metrics.parquet")


def stage_that_fails(results):
    path = results / "e/analysis/r/law.parquet"
    with tracking.stage("fit", "r", results=results, outputs=[path]):
        raise ValueError("not now")


def test_a_file_with_other_content_stays_and_is_named(made, tmp_path, capsys):
    copy = tmp_path / "copy"
    write(copy / "e/runs/r/manifest.json", "mine")
    assert restore_stage(uri(made), tracking.EXPERIMENT, None, [], copy) == 1
    assert (copy / "e/runs/r/manifest.json").read_text() == "mine"
    said = capsys.readouterr().out
    assert "left as it is, since it is another file than the recorded one: e/runs/r/manifest.json" in said
    assert "1 not as recorded" in said
    (copy / "e/runs/r/manifest.json").unlink()
    assert restore_stage(uri(made), tracking.EXPERIMENT, None, [], copy) == 0
    assert contents(copy) == contents(made)


def test_what_is_too_large_is_named_and_sent_when_the_limit_is_raised(results, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(ARTIFACT_LIMIT_VARIABLE, "0.001")
    stage(
        results, "make_model", "m", outputs={"e/models/m": {"a": "1" * 600, "b": "2" * 600}, "e/small.json": "{}"}
    )
    stage(results, "train", "r", inputs=["e/models/m"], outputs={"e/runs/r": b"r"})
    assert tracking.sync(results).pending == 0
    assert tracking.sync(results) == tracking.SyncResult()
    copy = tmp_path / "copy"
    assert restore_stage(uri(results), tracking.EXPERIMENT, None, [], copy) == 0
    tree = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in
                   (("a", "1" * 600), ("b", "2" * 600)))  # fmt: skip
    digest = hashlib.sha256(tree.encode()).hexdigest()
    said = capsys.readouterr().out
    assert f"not in MLflow: e/models/m, 0.0 MB, sha256 {digest}, made by make_model m" in said
    assert "read by train r" in said
    assert not (copy / "e/models").exists()
    assert (copy / "e/small.json").exists()
    monkeypatch.setenv(ARTIFACT_LIMIT_VARIABLE, "1")
    sent = tracking.sync(results)
    assert sent.artifacts == 2 + 2  # the record and its series, and both files of the folder
    assert tracking.sync(results) == tracking.SyncResult()
    assert restore(copy, uri(results)).placed == 2
    assert contents(copy) == contents(results)


def test_the_same_bytes_are_sent_once_for_each_execution(results, tmp_path):
    write(results / "store/samples/f.parquet", b"same")
    stage(
        results,
        "sample",
        "p",
        outputs={"e/evaluation/p/samples.parquet": b"same"},
        artifacts=["store/samples/f.parquet"],
    )
    assert tracking.sync(results).artifacts == 3  # record, series, samples
    assert restore(tmp_path / "copy", uri(results)).placed == 2
    assert contents(tmp_path / "copy") == contents(results)


def test_what_was_found_done_is_sent_by_whoever_made_it_or_found_it_unrecorded(results, tmp_path):
    def attempt(fails=False):
        """An execution that is killed after its work, finds it done, or does it."""
        kept, output = results / "store/f/final", results / "e/runs/r"
        with tracking.stage("train", "r", results=results, outputs=[output]) as record:
            if kept.exists():
                record.found(kept)
            else:
                write(kept / "weights", "w")
                record.artifact(kept)
            if fails:
                raise SystemExit(75)
            write(output, "r")

    with pytest.raises(SystemExit):
        attempt(fails=True)
    attempt()
    attempt()
    killed, first, second = sorted(tracking_records(results), key=lambda record: record.started)
    assert [len(record.artifacts) for record in (killed, first, second)] == [0, 1, 0]
    assert [[file.path for file in record.inputs] for record in (first, second)] == [["store/f/final"]] * 2
    tracking.sync(results)
    assert len(list(results.glob("mlartifacts/*/artifacts/outputs/store/f/final/weights"))) == 1
    assert restore(tmp_path / "copy", uri(results)).absent == ()
    assert contents(tmp_path / "copy") == contents(results)


def tracking_records(results):
    return [tracking.read_record(path) for path in results.glob("records/*/*.json")]


def test_a_file_replaced_before_it_was_sent_comes_from_an_execution_that_made_the_same(results, tmp_path):
    stage(results, "fit", "r", outputs={"e/analysis/law": b"1"})
    tracking.sync(results)
    stage(results, "fit", "r", outputs={"e/analysis/law": b"2"})
    stage(results, "fit", "r", outputs={"e/analysis/law": b"1"})
    write(results / "e/analysis/law", b"by hand")
    tracking.sync(results)
    assert restore(tmp_path / "copy", uri(results)).absent == ()
    assert (tmp_path / "copy/e/analysis/law").read_bytes() == b"1"


def test_a_damaged_copy_is_not_placed(made, tmp_path):
    (law,) = made.glob("mlartifacts/**/law.parquet")
    law.write_bytes(b"lax")
    done = restore(tmp_path / "copy", uri(made))
    assert len(done.damaged) == 1
    assert "law.parquet" in done.damaged[0]
    assert not (tmp_path / "copy/e/analysis/r/law.parquet").exists()


def test_an_interrupted_restore_is_completed_by_the_next(made, tmp_path, monkeypatch):
    place, count = module._place, 0

    def failing(source, target, moment=None):
        nonlocal count
        count += moment is not None
        if count > 3:
            raise OSError("disk full")
        place(source, target, moment)

    monkeypatch.setattr(module, "_place", failing)
    with pytest.raises(OSError, match="disk full"):
        restore(tmp_path / "copy", uri(made))
    monkeypatch.setattr(module, "_place", place)
    done = restore(tmp_path / "copy", uri(made))
    assert done.present == 3
    assert contents(tmp_path / "copy") == contents(made)
    assert age(tmp_path / "copy", "e/runs/r/manifest.json") < age(tmp_path / "copy", "e/analysis/r/law.parquet")


def test_artifacts_are_found_where_they_are_now(made, tmp_path):
    moved = tmp_path / "moved"
    made.rename(moved)
    expected = contents(moved)
    assert restore(tmp_path / "one", uri(moved)).absent == ()
    (moved / "mlartifacts").rename(tmp_path / "far")
    with pytest.raises(OSError, match=rf"were kept in {made}/mlartifacts, and .* say with --artifacts"):
        restore(tmp_path / "two", uri(moved))
    assert not (tmp_path / "two").exists()
    assert restore(tmp_path / "two", uri(moved), artifacts=tmp_path / "far").absent == ()
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == expected


@pytest.mark.parametrize("away", ["moved", "copied"])
def test_a_results_folder_that_was_moved_or_copied_sends_to_where_it_is(made, tmp_path, away):
    other, before = tmp_path / "other place", contents(made)
    sent = len(list(made.glob("mlartifacts/*")))
    if away == "moved":
        made.rename(other)
    else:
        shutil.copytree(made, other)
    stage(other, "fit", "s", outputs={"e/analysis/s/law.parquet": b"further"})
    assert tracking.sync(other).error is None
    assert len(list(other.glob("mlartifacts/*"))) == sent + 1
    assert made.exists() == (away == "copied")
    assert away == "moved" or contents(made) == before
    assert restore(tmp_path / "copy", uri(other)).absent == ()
    assert contents(tmp_path / "copy") == contents(other)
    with sqlite3.connect(other / "mlflow.db") as database:
        places = [place for (place,) in database.execute("select artifact_uri from runs where experiment_id = 2")]
    assert len(places) == sent + 1
    assert all(place.startswith((other / "mlartifacts").as_uri() + "/") for place in places)


def test_only_what_an_experiment_needs_is_restored(made, tmp_path):
    stage(made, "train", "s", inputs=["store/f/final"], outputs={"other/runs/s/manifest.json": "s"})
    stage(made, "prepare", "y", outputs={"other/data/y": "y", "store/unrelated": "u"})
    tracking.sync(made)
    restore(tmp_path / "copy", uri(made), only=["other"])
    files = {path for path in contents(tmp_path / "copy") if not path.startswith("records/")}
    assert files == {"other/runs/s/manifest.json", "other/data/y", "store/f/final/weights.safetensors"}
    with pytest.raises(ValueError, match="found 'ohter'; allowed: e, other"):
        restore(tmp_path / "copy", uri(made), only=["ohter"])


@pytest.mark.parametrize(
    ("address", "experiment", "words"),
    [
        ("sqlite:///{folder}/nothing.db", "entropy-mechanism", "there is no file {folder}/nothing.db"),
        ("{folder}/mlflow.db", "entropy-mechanism", "allowed: an address such as sqlite:///{folder}/mlflow.db"),
        (
            "sqlite:///{folder}/mlflow.db",
            "entropy",
            "has no MLflow experiment 'entropy'; it has: .*entropy-mechanism",
        ),
    ],
)
def test_a_store_that_is_not_there_is_said_and_nothing_is_made(made, tmp_path, address, experiment, words):
    with pytest.raises(ValueError, match=words.format(folder=made)):
        restore(tmp_path / "copy", address.format(folder=made), experiment)
    assert not (made / "nothing.db").exists()
    assert not (tmp_path / "copy").exists()


def test_no_record_writes_outside_the_results_folder(made, tmp_path):
    for path in made.glob("mlartifacts/*/artifacts/record.json"):
        path.write_text(path.read_text().replace("e/analysis/r/law.parquet", "../law.parquet"))
    with pytest.raises(ValueError, match=r"names ../law.parquet, outside the results folder"):
        restore(tmp_path / "copy", uri(made))
    assert not (tmp_path / "law.parquet").exists()
    assert "fit" not in [path.parent.name for path in (tmp_path / "copy/records").glob("*/*.json")]


def test_the_limit_is_a_number(monkeypatch):
    monkeypatch.setenv(ARTIFACT_LIMIT_VARIABLE, "much")
    with pytest.raises(
        ValueError, match=f"{ARTIFACT_LIMIT_VARIABLE}: found 'much'; allowed: a number of megabytes"
    ):
        tracking.sync(os.curdir)
