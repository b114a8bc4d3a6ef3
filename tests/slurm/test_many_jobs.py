"""Many jobs of which a tenth is killed: none is lost, none done twice without need, and nothing is left."""

import collections
import os
import random
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml
from loopback import LOCAL, SLURM

from entropy_mechanism.tracking.records import read_record, record_paths

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1500)]
SEED = 20250522


@pytest.fixture(scope="module")
def many(slurm, request):
    """Names of `--jobs` runs of an experiment, and the options to resolve them with, each in a job."""
    settings = yaml.safe_load((slurm.root / "config/experiments/smoke.yaml").read_text())
    seeds = [*range(1000, 1000 + request.config.getoption("--jobs"))]
    settings["runs"] = [{"models": ["nano"], "train_sets": ["train"], "methods": ["grpo"], "seeds": seeds}]
    settings["evaluation"].pop("compare_with")
    for name in ("figures", "tables"):
        settings.pop(name)
    (slurm.root / "many.yaml").write_text(yaml.safe_dump(settings))
    runs = [f"nano--train--grpo--s{seed}" for seed in seeds]
    snakefile = Path(__file__).with_name("many.smk")
    return runs, ("--snakefile", str(snakefile), "--config", f"runs={','.join(runs)}")


class Killer(threading.Thread):
    """Kills running jobs at random moments and in four ways, each job once."""

    def __init__(self, slurm, kills, seconds):
        """Kill that many, every so many seconds on average."""
        super().__init__(daemon=True)
        self.slurm, self.kills, self.seconds = slurm, kills, seconds
        self.random, self.killed, self.runs = random.Random(SEED), {}, set()

    def run(self):
        while len(self.killed) < self.kills:
            time.sleep(self.random.uniform(0, 2 * self.seconds))
            lines = self.slurm.run("squeue", "--noheader", "--states=RUNNING", "--format=%i %k").splitlines()
            jobs = dict(line.split(maxsplit=1) for line in lines if "rule_resolve_wildcards_" in line)
            if running := sorted(jobs.keys() - self.killed.keys()):
                job = self.random.choice(running)
                way = self.random.choice(["scancel", "scancel --signal=KILL --full", "kill -9 one", "kill -9 all"])
                if self.kill(job, way):
                    self.killed[job] = way
                    self.runs.add(jobs[job].partition("rule_resolve_wildcards_")[2])

    def kill(self, job, way):
        """Whether there was something to kill."""
        if way.startswith("scancel"):
            done = subprocess.run([*way.split(), job], env=self.slurm.environment, capture_output=True)
            return done.returncode == 0
        found = sorted(self.slurm.processes(f"SLURM_JOB_ID={job}"))
        for pid in [self.random.choice(found)] if found and way.endswith("one") else found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return bool(found)


def test_many_jobs_end_complete_though_a_tenth_of_them_is_killed(slurm, many):
    """Of a light stage, under the project's profile: plugin, retries and records, not trainings."""
    runs, options = many
    kills = len(runs) // 10
    killer = Killer(slurm, kills, 10)
    began = time.monotonic()
    log = "many.log"
    process = slurm.begin(log, *SLURM, *options)
    killer.start()
    text = slurm.finish(process, log, 1300)
    ways = collections.Counter(killer.killed.values())
    print(f"{len(runs)} jobs in {time.monotonic() - began:.0f} s; killed: {ways}")
    assert len(killer.killed) == kills

    # Submissions: each has a number of its own; one for every job, and one for every job that failed.
    submitted = re.findall(r"submitted with SLURM jobid (\d+) \(log: .*/rule_resolve/([^/]+)/", text)
    assert len({job for job, _ in submitted}) == len(submitted)
    by_run = collections.Counter(run for _, run in submitted)
    assert by_run.keys() == set(runs)
    again = text.count("Trying to restart job")
    assert len(submitted) == len(runs) + again
    # A job that was about to end when it was killed may have ended well; no other one fails.
    assert kills / 2 <= again <= kills
    assert {run for run, count in by_run.items() if count > 1} <= killer.runs
    assert {job for job, _ in submitted} >= killer.killed.keys()

    # Completions: every run has its outputs, and was executed once unless it was killed.
    records = collections.defaultdict(list)
    for record in map(read_record, record_paths(slurm.root / "results")):
        if record.stage == "resolve":
            records[record.key].append(record.status)
    for run in runs:
        folder = slurm.root / "results/many/runs" / run
        assert yaml.safe_load((folder / "run.yaml").read_text())["run"] == run
        assert [path.name for path in folder.iterdir()] == ["run.yaml"]
        if by_run[run] == 1:
            assert records[run] == ["FINISHED"]
        else:
            assert "FINISHED" in records[run]
            assert len(records[run]) <= by_run[run]

    # Leftovers: no job, no process, no lock, nothing incomplete, and nothing to be done.
    assert slurm.run("squeue", "--noheader", "--states=PENDING,RUNNING,COMPLETING") == ""
    assert not [pid for job, _ in submitted[-20:] for pid in slurm.processes(f"SLURM_JOB_ID={job}")]
    assert not list(slurm.root.glob(".snakemake/locks/*"))
    assert not list(slurm.root.glob(".snakemake/incomplete/*"))
    rest = slurm.snakemake("rest.log", *LOCAL, "-n", *options)
    assert "Nothing to be done" in rest
