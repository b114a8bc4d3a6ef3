"""Several results folders that share finished runs: one trains, the others take what it published."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
from repository import Workspace
from small_disk import small_disk
from trainers import RUN, STEPS, AfterRow, AtEvent, Trainers

from entropy_mechanism import tracking

SHARE = ("--shared-store", "shared")


@pytest.fixture(scope="module")
def trainers(tmp_path_factory):
    """One user has trained and published, readable by the group alone."""
    trainers = Trainers(tmp_path_factory.mktemp("sharing"))
    (trainers.root / "shared").mkdir()
    trainers.finish(*trainers.command("first", *SHARE), umask=0o027)
    assert f"training {STEPS} steps" in trainers.text()
    yield trainers
    trainers.close()


@pytest.fixture
def name(request, trainers):
    """Results folder of this test's user; the log is emptied, so that a test reads its own processes alone."""
    trainers.log.write_text("")
    return "user-" + re.sub(r"\W+", "-", request.node.name)


@pytest.fixture
def published(trainers):
    """The published run, which no test may change."""
    (place,) = (trainers.root / "shared").iterdir()
    before = state(place)
    yield place
    assert state(place) == before
    assert list((trainers.root / "shared").iterdir()) == [place]


def state(place):
    """Content, permissions and time of everything in a folder."""
    return {
        path.relative_to(place).as_posix(): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None,
        )
        for path in [place, *place.rglob("*")]
    }


def records(trainers, name, stage="train"):
    paths = sorted((trainers.root / name / "records" / stage).glob("[!.]*.json"))
    return [json.loads(path.read_text()) for path in paths]


def token_covariances(trainers, name):
    folder = trainers.root / name
    inputs = (
        f"--config run.yaml --metrics {name}/metrics.parquet --source {name}/manifest.json --store {name}/store"
    )
    outputs = [folder / "token_covariances.parquet", folder / "covariance_levels.parquet"]
    trainers.finish("token-covariances", *inputs.split(), "--outputs", *outputs, "--results", name)
    return pd.read_parquet(outputs[0])


def test_a_second_user_takes_the_run_and_everything_works_with_it(trainers, name, published):
    trainers.finish(*trainers.command(name, *SHARE), umask=0o077)
    assert f"{RUN}: found in {published}, nothing to train" in trainers.text()
    assert f"training {STEPS} steps" not in trainers.text()
    trainers.assert_alike(name, "first")
    folder = trainers.store(name)
    assert {path.name for path in folder.iterdir()} == {"lock", "final", "tokens", "metrics.jsonl", "done.json"}
    (record,) = records(trainers, name)
    (first,) = records(trainers, "first")
    assert record["params"]["taken_from"] == str(published)
    assert "taken_from" not in first["params"]
    assert record["params"]["fingerprint"] == first["params"]["fingerprint"] == published.name
    marker = json.loads((published / "published.json").read_text())
    assert marker["record_id"] == first["record_id"]
    assert (marker["git"], marker["environment"]) == (first["git"], first["environment"])
    assert marker["params"]["run"] == RUN

    pd.testing.assert_frame_equal(token_covariances(trainers, name), token_covariances(trainers, "first"))
    assert len(token_covariances(trainers, name)) == 1
    assert tracking.audit(trainers.root / name) == []

    for again in ((), ("--retry",)):
        trainers.finish(*trainers.command(name, *SHARE, *again))
        assert f"{RUN}: found in {name}/store/{published.name}, nothing to train" in trainers.text()
        assert records(trainers, name)[-1]["params"]["taken_from"] == str(published)
    trainers.finish(*trainers.command(name))  # the setting is gone, the run is still there
    trainers.assert_alike(name, "first")


def test_mlflow_gets_the_whole_series_of_a_taken_run(trainers, name, published):
    import sqlite3

    trainers.finish(*trainers.command(name, *SHARE))
    assert tracking.sync(trainers.root / name).error is None
    with sqlite3.connect(trainers.root / name / "mlflow.db") as store:
        steps = store.execute("select step from metrics where key = 'reward/mean' order by step").fetchall()
        taken = store.execute("select value from params where key = 'taken_from'").fetchall()
    store.close()
    assert steps == [(step,) for step in range(STEPS + 1)]
    assert taken == [(str(published),)]


def test_a_run_half_trained_here_is_replaced_by_the_published_one(trainers, name, published):
    trainers.kill(name, AfterRow(15))
    assert list(trainers.store(name).glob("checkpoints/step-*"))
    trainers.finish(*trainers.command(name, *SHARE))
    assert f"found in {published}" in trainers.text()
    assert "going on from" not in trainers.text()
    trainers.assert_alike(name, "first")
    assert not (trainers.store(name) / "checkpoints").exists()


@pytest.mark.parametrize(
    "moment", [AtEvent("os.remove", "checkpoints|state"), AtEvent("os.symlink", r"/\w+\.jsonl ")]
)
def test_a_kill_while_a_run_is_taken_leaves_nothing_that_counts_as_finished(trainers, name, published, moment):
    trainers.kill(name, AfterRow(15))
    assert trainers.kill(name, moment, *SHARE) == -signal.SIGKILL
    assert not (trainers.store(name) / "done.json").exists()
    shutil.copytree(trainers.root / name, trainers.root / f"{name}-alone", symlinks=True)
    trainers.finish(*trainers.command(f"{name}-alone"))
    trainers.assert_alike(f"{name}-alone", "first")
    assert not (trainers.store(f"{name}-alone") / "final").is_symlink()
    trainers.finish(*trainers.command(name, *SHARE))
    assert (trainers.store(name) / "done.json").is_symlink()
    trainers.assert_alike(name, "first")


def copy_shared(trainers, name, published):
    """A shared store of this test's own."""
    folder = trainers.root / f"{name}-shared"
    shutil.copytree(published, folder / published.name)
    return folder, ("--shared-store", folder.name)


@pytest.mark.parametrize("damaged", ["final/model.safetensors", "metrics.jsonl", "tokens/step-000000.parquet"])
def test_a_damaged_run_is_trained_again_and_left_as_it_is(trainers, name, published, damaged):
    folder, share = copy_shared(trainers, name, published)
    path = folder / published.name / damaged
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    before = state(folder)
    trainers.finish(*trainers.command(name, *share))
    assert f"warning: {folder / published.name} is not as it was published ({damaged})" in trainers.text()
    assert f"training {STEPS} steps" in trainers.text()
    trainers.assert_alike(name, "first")
    assert state(folder) == before
    assert "taken_from" not in records(trainers, name)[-1]["params"]


@pytest.mark.parametrize("what", ["gone", "damaged"])
def test_a_taken_run_whose_source_is_gone_or_damaged_is_noticed_and_trained_here(trainers, name, published, what):
    folder, share = copy_shared(trainers, name, published)
    trainers.finish(*trainers.command(name, *share))
    assert (trainers.store(name) / "final").is_symlink()
    if what == "gone":
        shutil.rmtree(folder)
        folder.mkdir()
    else:
        (folder / published.name / "metrics.jsonl").write_text("")
    before = state(folder)
    trainers.log.write_text("")
    trainers.finish(*trainers.command(name))
    assert (
        f"the run that was taken from {folder / published.name} is gone from there, or damaged" in trainers.text()
    )
    assert f"training {STEPS} steps" in trainers.text()
    assert "going on with it" not in trainers.text()
    trainers.assert_alike(name, "first")
    assert not (trainers.store(name) / "final").is_symlink()
    assert state(folder) == before


def test_a_run_that_was_trained_before_anything_was_shared_is_published_when_it_is_asked_for_again(
    trainers, name, published
):
    shutil.copytree(trainers.root / "first", trainers.root / name)
    folder = trainers.root / f"{name}-shared"
    folder.mkdir()
    trainers.finish(*trainers.command(name, "--shared-store", folder.name))
    assert "nothing to train" in trainers.text()
    marker = json.loads((folder / published.name / "published.json").read_text())
    assert marker["digests"] == json.loads((published / "published.json").read_text())["digests"]


@pytest.mark.parametrize(
    "moment",
    [
        AtEvent("os.mkdir", r"shared/\.\w+-\w+/final"),
        AtEvent("open", r"shared/\.\w+-\w+/metrics\.jsonl"),
        AtEvent("open", r"shared/\.\w+-\w+/\.published"),
        AtEvent("os.rename", r"shared/\.\w+-\w+ "),
    ],
)
def test_a_publisher_that_is_killed_leaves_nothing_that_anyone_takes(trainers, name, moment):
    folder = trainers.root / f"{name}-shared"
    folder.mkdir()
    share = ("--shared-store", folder.name)
    shutil.copytree(trainers.root / "first", trainers.root / name)
    assert trainers.kill(name, moment, *share) == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert left.name.startswith(".")
    trainers.log.write_text("")
    trainers.finish(*trainers.command(name, *share))  # as Snakemake tries again
    assert "nothing to train" in trainers.text()
    trainers.finish(*trainers.command(f"{name}-other", *share))
    assert f"training {STEPS} steps" not in trainers.text()
    trainers.assert_alike(f"{name}-other", "first")


def test_a_store_that_is_full_or_read_only_costs_a_line_and_the_run_is_trained(trainers, name):
    folder = trainers.root / f"{name}-shared"
    with small_disk(folder, "64k") as disk:
        trainers.finish(*trainers.command(name, "--shared-store", folder.name))
        trainers.assert_alike(name, "first")
        assert "No space left on device" in trainers.text()
        assert list(folder.iterdir()) == []
        disk.protect()
        trainers.log.write_text("")
        trainers.finish(*trainers.command(name, "--shared-store", folder.name))
        assert trainers.text().count("warning: ") == 1
        assert "Read-only file system" in trainers.text()
    assert [record["status"] for record in records(trainers, name)] == ["FINISHED"] * 2


def test_a_run_is_taken_from_a_store_that_cannot_be_written(trainers, name, published):
    folder = trainers.root / f"{name}-shared"
    with small_disk(folder, "10m") as disk:
        shutil.copytree(published, folder / published.name)
        disk.protect()
        trainers.finish(*trainers.command(name, "--shared-store", folder.name))
        assert "nothing to train" in trainers.text()
        assert "warning" not in trainers.text()
        trainers.assert_alike(name, "first")
        assert len(token_covariances(trainers, name)) == 1


def test_responses_are_taken_from_the_shared_store_too(trainers, name):
    folder = trainers.root / f"{name}-shared"
    folder.mkdir()
    answers = []
    for user in ("one", "two"):
        here = f"{name}-{user}"
        inputs = "--experiment quick.yaml --policy first/manifest.json --model nano --problems easy=easy.parquet"
        outputs = f"--outputs easy={here}/samples.parquet --store {here}/store --key x --results {here}"
        trainers.finish("sample", *inputs.split(), *outputs.split(), "--shared-store", folder.name)
        answers.append((trainers.root / here / "samples.parquet").read_bytes())
    assert answers[0] == answers[1]
    (place,) = folder.iterdir()
    one, two = (records(trainers, f"{name}-{user}", "sample")[-1]["params"] for user in ("one", "two"))
    assert "taken_from" not in one
    assert two["taken_from"] == {"easy": str(place)}
    damaged = place / "responses.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    here = f"{name}-three"
    outputs = f"--outputs easy={here}/samples.parquet --store {here}/store --key x --results {here}"
    trainers.finish("sample", *inputs.split(), *outputs.split(), "--shared-store", folder.name)
    assert (trainers.root / here / "samples.parquet").read_bytes() == answers[0]
    assert f"warning: {place} is not as it was published (responses.parquet)" in trainers.text()


def test_a_second_checkout_takes_what_the_workflow_of_the_first_trained(workspace, tmp_path):
    target = f"results/smoke/runs/{RUN}/manifest.json"
    settings = ("--config", "experiment=smoke", f"shared_store={tmp_path}/shared")
    (tmp_path / "shared").mkdir()
    workspace.snakemake(target, *settings)
    (place,) = (tmp_path / "shared").iterdir()
    other = Workspace(tmp_path / "other")
    shutil.copytree(workspace.root, other.root)
    shutil.rmtree(other.results / "store")
    (other.root / target).unlink()
    assert f"{RUN}: found in {place}, nothing to train" in other.snakemake(target, *settings).stdout
    digests = [json.loads((root / target).read_text())["digests"] for root in (workspace.root, other.root)]
    assert digests[0] == digests[1]


def test_the_variable_of_the_workflow_reaches_a_training(trainers, name, published):
    done = subprocess.run(
        [sys.executable, "-m", "entropy_mechanism", *trainers.command(name)],
        cwd=trainers.root,
        env=trainers.environment | {"ENTROPY_MECHANISM_SHARED_STORE": str(trainers.root / "shared")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"found in {published}, nothing to train" in done.stdout
    assert os.readlink(trainers.store(name) / "done.json") == str(published / "done.json")
