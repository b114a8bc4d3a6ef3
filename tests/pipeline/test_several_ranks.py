"""The training stage on two ranks: started, stopped, killed, failing together, and bit-identical after that."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from trainers import STEPS, Trainers


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """Data, base model and settings of a run on two ranks, and that run."""
    trainers = Trainers(tmp_path_factory.mktemp("ranks"))
    alone = yaml.safe_load((trainers.root / "run.yaml").read_text())
    several = alone | {"compute": {"device": "cpu", "ranks": 2, "sharding": "full"}}
    (trainers.root / "ranks.yaml").write_text(yaml.safe_dump(several))
    (trainers.root / "broken.yaml").write_text(yaml.safe_dump(several | {"training": alone["training"] | BROKEN}))
    trainers.finish(*trainers.command("alone"))
    trainers.close()
    status, text = finish(begin(trainers, "whole"))
    assert status == 0, text
    return trainers


BROKEN = {"learning_rate": 1e30, "max_skipped_updates": 0}


def begin(trainers, name, *options, config="ranks.yaml"):
    command = [part if part != "run.yaml" else config for part in trainers.command(name, *options)]
    return subprocess.Popen(
        [sys.executable, "-m", "entropy_mechanism", *command],
        cwd=trainers.root,
        env=trainers.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process):
    text, _ = process.communicate(timeout=200)
    return process.returncode, text


def ranks_of(trainers, name):
    """Process ids of the ranks of a run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            if "train-rank" in words and os.readlink(entry / "cwd") == str(trainers.root):
                found += [int(entry.name)] * any(f"{name}/store" in word for word in words)
        except (OSError, UnicodeDecodeError):
            continue
    return sorted(found)


def wait_for_row(trainers, name, rows, process):
    give_up = time.monotonic() + 120
    while trainers.rows(name) < rows:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < give_up
        time.sleep(0.002)


def wait_for_end(trainers, name):
    give_up = time.monotonic() + 20
    while ranks_of(trainers, name):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_two_ranks_begin_as_one_does_and_learn(ranked):
    one, two = (pd.read_parquet(ranked.root / name / "metrics.parquet") for name in ("alone", "whole"))
    assert len(two) == STEPS + 1
    for column in (
        "reward/mean",
        "entropy/sequence_mean/before_filter",
        "covariance/mean",
        "policy/gradient_norm",
    ):
        assert two[column][0] == pytest.approx(one[column][0], rel=1e-4), column
    assert two["policy/loss"].notna().sum() > STEPS // 2
    (done,) = (ranked.root / "whole/store").glob("*/done.json")
    assert set(json.loads(done.read_text())["digests"]) == set(ranked.result("alone")[1])
    assert ranked.store("whole").name == ranked.store("alone").name  # ranks are not part of what a run is


def test_ranks_stop_together_with_a_checkpoint_and_go_on(ranked):
    """One run, asked in three ways."""
    name = "stopped"
    for how in (signal.SIGTERM, signal.SIGINT, "deadline"):
        if how == "deadline":
            status, text = finish(begin(ranked, name, "--deadline-seconds", "3"))
        else:
            process = begin(ranked, name)
            wait_for_row(ranked, name, ranked.rows(name) + 5, process)
            os.killpg(process.pid, how)
            status, text = finish(process)
        assert status == 75, text
        assert "start again to go on" in text
    status, text = finish(begin(ranked, name))
    assert status == 0, text
    ranked.assert_alike(name, "whole")


def test_ranks_that_do_not_listen_yet_stop_together_too(ranked):
    process = begin(ranked, "early")
    give_up = time.monotonic() + 60
    while len(ranks_of(ranked, "early")) < 2:
        assert time.monotonic() < give_up
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGTERM)
    status, text = finish(process)
    assert status == 75, text
    assert "start again to go on" in text
    assert not list((ranked.root / "early/store").glob("*/failed.json"))


def test_a_kill_of_any_process_ends_all_and_the_run_goes_on(ranked):
    """One run, of which a process is killed three times."""
    name = "killed"
    for victim in ("launcher", "main rank", "other rank"):
        process = begin(ranked, name)
        wait_for_row(ranked, name, ranked.rows(name) + 5, process)
        ranks = ranks_of(ranked, name)
        assert len(ranks) == 2
        by_rank = sorted(ranks, key=lambda pid: b"\0RANK=1" in Path(f"/proc/{pid}/environ").read_bytes())
        pid = {"launcher": process.pid, "main rank": by_rank[0], "other rank": by_rank[1]}[victim]
        os.kill(pid, signal.SIGKILL)
        status, text = finish(process)
        wait_for_end(ranked, name)
        if victim == "launcher":
            assert status == -signal.SIGKILL
        else:
            assert status == 1
            assert f"rank {by_rank.index(pid)} of 2 ended with status -9" in text
            assert "going on from step" in text
    status, text = finish(begin(ranked, name))
    assert status == 0, text
    assert "going on from step" in text
    ranked.assert_alike(name, "whole")


def test_a_permanent_error_is_told_and_stops_further_attempts(ranked):
    status, text = finish(begin(ranked, "broken", config="broken.yaml"))
    assert status == 1
    assert "updates had a loss or gradient that was not finite" in text
    assert (ranked.store("broken") / "failed.json").is_file()
    assert (ranked.root / "broken/gave-up.json").is_file()
    status, text = finish(begin(ranked, "broken", config="broken.yaml"))
    assert status == 1
    assert "not tried again" in text
