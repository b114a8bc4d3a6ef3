"""One training by two launchers that stand for two machines: the same bits as one, and ends that all share."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from test_several_ranks import BROKEN, ranks_of, wait_for_end, wait_for_row
from trainers import Trainers

from entropy_mechanism.stages.launch import GRACE


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Data, base model and settings of a run on one node and on two, and the run on one."""
    trainers = Trainers(tmp_path_factory.mktemp("nodes"))
    settings = yaml.safe_load((trainers.root / "run.yaml").read_text())
    compute = {"device": "cpu", "ranks": 2, "sharding": "full"}
    for name, changes in {
        "one": {"compute": compute},
        "two": {"compute": compute | {"nodes": 2}},
        "broken": {"compute": compute | {"nodes": 2}, "training": settings["training"] | BROKEN},
    }.items():
        (trainers.root / f"{name}.yaml").write_text(yaml.safe_dump(settings | changes))
    trainers.close()
    assert finish(*begin(trainers, "whole", config="one.yaml", nodes=1)) == 0
    return trainers


def begin(trainers, name, *options, config="two.yaml", nodes=2, ranks=None, environment=(), **changes):
    """Start the launchers of a training; `changes` replace parts of node 1's command."""
    port = free_port_pair()
    processes = []
    for node in range(nodes) if ranks is None else ranks:
        command = [part if part != "run.yaml" else config for part in trainers.command(name, *options)]
        if nodes > 1:
            command += ["--nodes", nodes, "--node-rank", node, "--main-address", "127.0.0.1", "--port", port]
        for option, value in changes.items() if node else ():
            command[command.index(f"--{option.replace('_', '-')}") + 1] = value
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "entropy_mechanism", *map(str, command)],
                cwd=trainers.root,
                env=trainers.environment | dict(environment),
                stdout=(trainers.root / f"{name}.log").open("ab"),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
    return processes


def free_port_pair():
    """A port that is free, and the one after it."""
    while True:
        with socket.create_server(("", 0)) as first:
            port = first.getsockname()[1]
            try:
                socket.create_server(("", port + 1)).close()
            except OSError:
                continue
            return port


def finish(*processes):
    """The exit status that all have."""
    statuses = [process.wait(timeout=100) for process in processes]
    assert len(set(statuses)) == 1, statuses
    return statuses[0]


def text(trainers, name):
    return (trainers.root / f"{name}.log").read_text()


def test_two_nodes_of_one_rank_train_like_one_node_of_two(two):
    assert finish(*begin(two, "pair")) == 0, text(two, "pair")
    two.assert_alike("pair", "whole")
    assert not list((two.root / "pair/store").glob(".*"))
    assert text(two, "pair").count("training 40 steps") == 1
    records = list((two.root / "pair/records/train").glob("*.json"))
    assert [json.loads(path.read_text())["status"] for path in records] == ["FINISHED"]  # node 0's alone
    assert finish(*begin(two, "pair")) == 0
    assert "nothing to train" in text(two, "pair")


def test_all_nodes_stop_after_the_same_step_whichever_is_asked_and_one_node_goes_on(two):
    """One run, asked in three ways."""
    name = "stopped"
    for asked in (0, 1, None):
        if asked is None:
            processes = begin(two, name, "--deadline-seconds", "1000", deadline_seconds="8")
        else:
            processes = begin(two, name)
            wait_for_row(two, name, two.rows(name) + 5, processes[0])
            os.kill(processes[asked].pid, signal.SIGTERM)
        assert finish(*processes) == 75, text(two, name)
        assert "start again to go on" in text(two, name)
    assert finish(*begin(two, name, config="one.yaml", nodes=1)) == 0, text(two, name)
    two.assert_alike(name, "whole")


def test_a_kill_on_any_node_ends_all_soon_with_one_line_and_the_run_goes_on(two):
    """One run, of which a process is killed four times."""
    name, host = "killed", os.uname().nodename
    for what, index in (("launcher", 0), ("launcher", 1), ("rank", 0), ("rank", 1)):
        processes = begin(two, name)
        wait_for_row(two, name, two.rows(name) + 5, processes[0])
        ranks = ranks_of(two, name)
        ranks = sorted(ranks, key=lambda pid: b"\0RANK=1" in Path(f"/proc/{pid}/environ").read_bytes())
        killed = processes[index] if what == "launcher" else None
        os.kill(killed.pid if killed else ranks[index], signal.SIGKILL)
        began = time.monotonic()
        assert finish(*(process for process in processes if process is not killed)) == 1, text(two, name)
        assert time.monotonic() - began < GRACE + 10
        wait_for_end(two, name)
        gone = f"error: node {index} of 2 ({host}) is gone: its launcher ended without a word"
        line = gone if killed else f"error: rank {index} of 2 (node {index} of 2 ({host})) ended with status -9"
        assert text(two, name).count(line) == 1, text(two, name)
    assert finish(*begin(two, name)) == 0, text(two, name)
    assert text(two, name).count("going on from step") == 4, text(two, name)
    two.assert_alike(name, "whole")


def test_a_permanent_error_on_two_nodes_stops_further_attempts(two):
    assert finish(*begin(two, "broken", config="broken.yaml")) == 1
    assert (two.store("broken") / "failed.json").is_file()
    assert finish(*begin(two, "broken", config="broken.yaml")) == 1
    assert text(two, "broken").count("error: updates had") + text(two, "broken").count("not tried again") >= 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"store": "elsewhere/store"}, "does not see the store of node 0"),
        ({"train_set": "validation.parquet"}, "it has to be the same file on all nodes"),
        ({"model": "elsewhere/manifest.json"}, "is missing, on node 0"),
        ({"model": "torn.json"}, "torn.json is not a manifest"),
    ],
)
def test_a_node_that_sees_other_files_is_named_before_anything_starts(two, changes, expected):
    name = f"unfit-{Path(next(iter(changes.values()))).stem}"
    (two.root / "torn.json").write_text("{}")
    processes = begin(two, name, **changes)
    began = time.monotonic()
    assert finish(*processes) == 1
    assert time.monotonic() - began < 30
    assert f"error: not started, since not all nodes are fit: node 1 of 2 ({os.uname().nodename}): " in text(
        two, name
    )
    assert expected in text(two, name)
    assert not list((two.root / name / "store").iterdir())


def test_a_stop_before_the_start_ends_all_nodes_with_75(two):
    (process,) = begin(two, "lonely", ranks=[0])
    give_up = time.monotonic() + 60
    while not list((two.root / "lonely/store").glob(".nodes-*")):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert finish(process) == 75
    assert "stopped (SIGTERM); start again to go on" in text(two, "lonely")
