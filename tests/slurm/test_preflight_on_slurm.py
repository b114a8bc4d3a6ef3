"""`entropy-mechanism preflight` before a real cluster: it reads what Slurm says as Slurm says it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from loopback import TOOLS
from repository import REPOSITORY

pytestmark = pytest.mark.slurm
PARTITIONS = """\
PartitionName=short Nodes=n1 MaxTime=01:00:00 State=UP
PartitionName=closed Nodes=n1 State=DOWN
PartitionName=theirs Nodes=n1 AllowAccounts=theirs State=UP
PartitionName=one Nodes=n1,n2 MaxNodes=1 State=UP"""


class Site:
    """A cluster with partitions of several kinds, and the command before it."""

    def __init__(self, root):
        self.root, self.folder = root, root / "slurm"
        settings = {"EXTRA": PARTITIONS, "GPU_TYPE": "a100", "CPUS": "16"}
        subprocess.run([TOOLS / "up", self.folder], env=os.environ | settings, check=True, timeout=60)
        names = ("SBATCH_PARTITION", "SBATCH_ACCOUNT", "SBATCH_QOS")
        clean = {name: value for name, value in os.environ.items() if name not in names}
        self.environment = clean | {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY / "src"),
        }

    def preflight(self, *options, compute=None, **environment):
        """Status, errors and everything of the command, which takes three seconds at most."""
        settings = yaml.safe_load((REPOSITORY / "config/experiments/smoke.yaml").read_text())
        settings["compute"] = {"nano": compute or {}}
        (self.root / "asked.yaml").write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "entropy_mechanism", "preflight", "--profile", "slurm", *options]
        config = ["--config", f"experiment={self.root}/asked.yaml", f"results={self.root}/results"]
        began = time.monotonic()
        done = subprocess.run([*command, *config], cwd=REPOSITORY, env=self.environment | environment,
                              capture_output=True, text=True, timeout=60)  # fmt: skip
        assert time.monotonic() - began < 3 * SLOW
        assert done.stderr == ""
        lines = done.stdout.splitlines()
        return done.returncode, [line for line in lines if line.startswith("error: ")], lines

    def site(self, **settings):
        """Options that give the profile a site's file."""
        (self.root / "site.yaml").write_text(yaml.safe_dump(settings))
        return "--profile", str(self.root / "site.yaml")


SLOW = 1.5
"""What else runs on the cores of the tests."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = Site(tmp_path_factory.mktemp("preflight"))
    yield made
    subprocess.run([TOOLS / "down", made.folder], check=True, timeout=60)


def test_a_cluster_that_can_run_the_experiment_passes(site):
    status, errors, lines = site.preflight()
    assert (status, errors) == (0, [])
    assert any("squeue will tell when a job has ended, since Slurm keeps no accounts" in line for line in lines)
    assert site.preflight(compute={"device": "cuda", "ranks": 4, "nodes": 2})[:2] == (0, [])


@pytest.mark.parametrize(
    ("compute", "environment", "expected"),
    [
        (
            {},
            {"SBATCH_PARTITION": "gpus"},
            "no partition 'gpus'; SBATCH_PARTITION, or slurm_partition in the site's file; "
            "there are closed, main, one, short, theirs",
        ),
        ({}, {"SBATCH_PARTITION": "closed"}, "partition closed is DOWN"),
        ({}, {"SBATCH_PARTITION": "theirs", "SBATCH_ACCOUNT": "mine"}, "closed to account 'mine'"),
        ({}, {"SBATCH_PARTITION": "short"}, "time limit 240 min, and partition short allows 60"),
        (
            {"device": "cuda", "ranks": 3},
            {},
            "3 GPUs on a node, and no node of partition main has more than 2 (types there: a100)",
        ),
        ({"ranks": 17}, {}, "17 cores on a node, and no node of partition main has more than 16"),
        ({"ranks": 2, "nodes": 2}, {"SBATCH_PARTITION": "one"}, "2 nodes, and partition one allows 1"),
        ({"ranks": 3, "nodes": 3}, {}, "on each of 3 nodes, and partition main has 2 such"),
    ],
)
def test_what_slurm_would_refuse_or_leave_pending_is_told(site, compute, environment, expected):
    status, errors, _ = site.preflight(compute=compute, **environment)
    assert status == 1
    assert any(expected in line for line in errors), errors


def test_what_preflight_refuses_slurm_refuses_or_leaves_pending(site):
    """The same demands, made of Slurm itself."""
    for demand in (
        ["--partition=gpus"],
        ["--partition=closed"],
        ["--partition=short", "--time=240"],
        ["--gres=gpu:3"],
        ["--gres=gpu:h100:1"],
        ["--cpus-per-task=17"],
        ["--partition=one", "--nodes=2"],
        ["--nodes=3"],
    ):
        command = ["sbatch", "--parsable", "--chdir=/tmp", "--output=/dev/null", *demand, "--wrap=true"]
        done = subprocess.run(command, env=site.environment, capture_output=True, text=True, timeout=30)
        if done.returncode == 0:
            time.sleep(1)
            state = subprocess.run(["squeue", "--noheader", "--jobs", done.stdout.strip(), "--format=%T"],
                                   env=site.environment, capture_output=True, text=True, timeout=30)  # fmt: skip
            assert state.stdout.strip() == "PENDING", demand
            subprocess.run(["scancel", done.stdout.strip()], env=site.environment, check=True, timeout=30)


def test_a_site_file_is_heeded(site):
    huge = site.site(**{"set-resources": {"train": {"mem_mb": 10**9}}})
    status, errors, _ = site.preflight(*huge)
    assert status == 1
    assert any("1000000000 MB on a node" in line for line in errors), errors
    hour = {rule: {"runtime": "1h"} for rule in ("train", "sample", "sample_2")}
    usual = {"runtime": 5, "mem_mb": 4000, "slurm_partition": "short"}
    limited = site.site(**{"set-resources": hour, "default-resources": usual})
    assert site.preflight(*limited)[:2] == (0, [])


def test_nodes_that_are_drained_are_a_warning(site):
    def set_state(*state):
        subprocess.run(
            ["scontrol", "update", "NodeName=n1,n2", *state], env=site.environment, check=True, timeout=30
        )

    set_state("State=DRAIN", "Reason=test")
    try:
        status, errors, lines = site.preflight()
    finally:
        set_state("State=RESUME")
    assert (status, errors) == (0, [])
    assert any(line.startswith("warning: ") and "down or drained" in line for line in lines)


def test_a_controller_that_hangs_or_is_gone_is_told_in_time(site):
    controller = int((site.folder / "slurmctld.pid").read_text())
    os.kill(controller, signal.SIGSTOP)
    try:
        status, errors, _ = site.preflight()
    finally:
        os.kill(controller, signal.SIGCONT)
    assert status == 1
    assert any("controller does not answer" in line for line in errors), errors
    configuration = site.folder / "slurm.conf"
    configuration.write_text(configuration.read_text().replace("MinJobAge=300", "MinJobAge=60"))
    subprocess.run(["scontrol", "reconfigure"], env=site.environment, check=True, timeout=60)
    status, errors, _ = site.preflight()
    assert status == 1
    assert any("squeue forgets a job 60 s after its end" in line for line in errors), errors
    os.kill(controller, signal.SIGKILL)
    assert any("controller does not answer" in line for line in site.preflight()[1])
    path = Path("/proc") / str(controller)
    assert not path.exists() or "slurmctld" not in (path / "cmdline").read_text()
