"""One training by two launchers that stand for two machines: the same bits as one, and ends that all share."""

import socket
import subprocess
import sys

import pytest
import yaml
from test_several_ranks import BROKEN
from trainers import Trainers


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
    (process,) = begin(trainers, "whole", config="one.yaml", nodes=1)
    assert finish(process) == (0, [])
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
    statuses = {process.wait(timeout=200) for process in processes}
    assert len(statuses) == 1, statuses
    return statuses.pop(), []


def text(trainers, name):
    return (trainers.root / f"{name}.log").read_text()


def test_two_nodes_of_one_rank_train_like_one_node_of_two(two):
    status, _ = finish(*begin(two, "pair"))
    assert status == 0, text(two, "pair")
    two.assert_alike("pair", "whole")
    left = [path.name for path in (two.root / "pair/store").glob(".*")]
    assert not left
