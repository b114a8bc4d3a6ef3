"""A copy of the repository and a Slurm cluster of two nodes on this machine, for the tests of the cluster."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from repository import REPOSITORY, copy_repository

LOCAL = ("--profile", "workflow/profiles/local")
SLURM = ("--profile", "slurm", "--profile", "site.yaml")
TOOLS = REPOSITORY / "workflow/slurm-loopback"
SITE = """\
slurm-init-seconds-before-status-checks: 1
max-status-checks-per-second: 10
max-jobs-per-second: 20
latency-wait: 5
"""
"""What a site changes: here jobs are submitted and looked after more often."""


class Loopback:
    """The cluster and the workspace in one folder."""

    def __init__(self, root: Path) -> None:
        """Start the cluster and copy the files that git knows or would add."""
        self.cluster, self.root = root / "slurm", root / "repository"
        self.begun: list[subprocess.Popen] = []
        copy_repository(self.root)
        (self.root / "site.yaml").write_text(SITE)
        self.run(TOOLS / "up", self.cluster)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ENTROPY_MECHANISM")}
        self.environment = inherited | {
            "PATH": f"{self.cluster}/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def close(self) -> None:
        """End the cluster, and what a test that failed has left running."""
        for process in self.begun:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        self.run(TOOLS / "down", self.cluster)
        # Slurm's own ways to find the processes of a job (here linuxproc) lose those whose parents were killed.
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"PATH={self.cluster}/bin:".encode() in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)

    def run(self, *command: object) -> str:
        """Output of a command that has to succeed."""
        environment = getattr(self, "environment", None)
        done = subprocess.run(
            list(map(str, command)), cwd=self.root, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def begin(self, log: str, *arguments: str) -> subprocess.Popen:
        """Start Snakemake; its output goes to the file `log`."""
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("hurried.py"), *arguments],
            cwd=self.root,
            env=self.environment,
            stdout=(self.root / log).open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.begun.append(process)
        return process

    def finish(self, process: subprocess.Popen, log: str, seconds: float = 900) -> str:
        """Output of a Snakemake that has to succeed in time."""
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = "no end in time"
        text = (self.root / log).read_text()
        queue = self.run("squeue", "--all", "--format=%i %T %r %N %k")
        assert status == 0, f"{status}\n{text[-6000:]}\n{queue}"
        return text

    def snakemake(self, log: str, *arguments: str) -> str:
        """Run Snakemake to its end."""
        return self.finish(self.begin(log, *arguments), log)

    def job(self, run: str, seconds: float = 200) -> str:
        """The Slurm job that trains a run now."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in self.run("squeue", "--noheader", "--states=RUNNING", "--format=%i %k").splitlines():
                if line.endswith(f"rule_train_wildcards_{run}"):
                    return line.split()[0]
            time.sleep(0.2)
        raise AssertionError(f"no job trains {run}\n" + self.run("squeue", "--all"))

    def processes(self, variable: str) -> list[int]:
        """Processes whose environment has this `NAME=value`."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if variable.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return [pid for pid in found if pid != os.getpid()]

    def kill_node(self, node: str) -> None:
        """What a power failure does: the daemon and all that runs on the node are gone at once."""
        daemon = int((self.cluster / f"slurmd-{node}.pid").read_text())
        jobs = self.run("squeue", "--noheader", f"--nodelist={node}", "--format=%i").split()
        doomed = {daemon} | {pid for job in jobs for pid in self.processes(f"SLURM_JOB_ID={job}")}
        doomed |= self.steps(jobs)
        for pid in doomed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        # Slurm would notice by itself, after SlurmdTimeout; what it does then is the same.
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=dead")

    def steps(self, jobs: list[str]) -> set[int]:
        """The processes with which slurmd oversees these jobs."""
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            except OSError:
                continue
            if words.startswith("slurmstepd: [") and words[13:].split(".")[0] in jobs:
                found.add(int(entry.name))
        return found

    def revive_node(self, node: str) -> None:
        """Start its daemon again."""
        environment = self.environment | {"SLURM_CONF": str(self.cluster / "slurm.conf")}
        path = environment["PATH"] + ":/usr/sbin:/sbin"
        slurmd = shutil.which("slurmd", path=path)
        subprocess.run([slurmd, "-N", node], env=environment, check=True, timeout=30)
