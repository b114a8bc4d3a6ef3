"""What `entropy-mechanism preflight` sees where all is well, and what it tells when one thing is not."""

import math
from dataclasses import replace
from pathlib import Path

from entropy_mechanism.config import Site, load_experiment
from entropy_mechanism.paths import Paths
from entropy_mechanism.plan import Plan
from entropy_mechanism.stages import preflight
from entropy_mechanism.stages.preflight import scene
from entropy_mechanism.stages.preflight.cluster import Cluster, Nodes, Partition

ROOT = Path(__file__).parents[2]
PAPER = Plan(load_experiment(ROOT / "config/experiments/paper.yaml"))
SMOKE = Plan(load_experiment(ROOT / "config/experiments/smoke.yaml"))
GPU_NODES = Nodes(4, 128, 1_500_000, {"h100": 8}, "idle")
GPU = Partition("gpu", True, "UP", 2880, math.inf, None, None, (GPU_NODES,))
CONFIG = {"AccountingStorageType": "accounting_storage/slurmdbd", "MinJobAge": "300 sec"}
WELL = Cluster("Slurmctld(primary) at head is UP", CONFIG, {"gpu": GPU})
PROFILE = {"cores": 2, "default-resources": {"mem_mb": 4000, "runtime": 30}}
ANSWERS = {
    "results": None,
    "free": 10**15,
    "free for downloads": 10**15,
    "hub": None,
    "sacct": (True, ""),
    "results folder": "nfs4",
    "sacctmgr": (True, "mine||normal,long\nother|gpu|normal\n"),
}


def situation(tmp_path, plan=PAPER, gpu_type=None, tracking_uri=None, profile=(), answers=(), **changes):
    """All is well, except for the changes."""
    site = Site(experiment="x", results=str(tmp_path), gpu_type=gpu_type, tracking_uri=tracking_uri)
    kinds = dict.fromkeys(("results", "the checkout", "Python's environment", "the hub's cache"), "nfs4")
    every = ANSWERS | {f"file system of {name}": kind for name, kind in kinds.items()} | dict(answers)
    known = {"profile": PROFILE | dict(profile), "cluster": WELL, "answers": every} | changes
    return scene.Scene(site, plan, Paths(tmp_path, "x"), **known)


def findings(seen):
    """Everything that the checks of the command tell."""
    return preflight.findings(seen)


def problems(seen):
    """Without notes, as they are printed."""
    return [str(finding) for finding in findings(seen) if finding.level != "note"]


def the_problem(seen):
    """The only one."""
    (line,) = problems(seen)
    assert "\n" not in line
    return line


def with_partition(**changes):
    return replace(WELL, partitions={"gpu": replace(GPU, **changes)})


def with_nodes(**changes):
    return with_partition(nodes=(replace(GPU_NODES, **changes),))


def asking(**resources):
    return {"default-resources": PROFILE["default-resources"] | resources}


def commands(folder, **scripts):
    """Stand-ins for Slurm's commands, for what no real cluster of one machine does."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
