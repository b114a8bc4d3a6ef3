"""The workflow on a real Slurm: the same results as without it, whatever happens to its jobs."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from loopback import LOCAL, SLURM

from entropy_mechanism.tracking.records import read_record, record_paths

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1500)]
SINGLE = [f"nano--train--grpo--s{seed}" for seed in (1, 2, 3)]
PAIR = "pair--train--grpo--s4"  # a seed of its own: where a run trains is no part of its identity
STEPS = 60


def test_snakemake_starts_without_pandas_and_the_plugin_still_has_its_report():
    start = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "snakemake", "--version"], capture_output=True
    )
    assert b"snakemake_executor_plugin_slurm" in start.stderr
    assert b"pandas" not in start.stderr
    code = (
        "import inspect, snakemake_executor_plugin_slurm as plugin, snakemake_executor_plugin_slurm.utils\n"
        "try: plugin.create_efficiency_report(0.8, 'run', None, None)\n"
        "except Exception as error: print(inspect.trace()[-1].filename)"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "snakemake_executor_plugin_slurm/efficiency_report.py" in asked.stdout, asked.stderr


def test_every_stage_of_smoke_is_a_job_of_slurm_or_part_of_one(slurm, smoke):
    assert re.search(r"\b(\d+) of \1 steps \(100%\) done", smoke)
    for rule in (
        "rule_train",
        "rule_sample",
        "rule_make_model",
        "group_analysis",
        "group_scores",
        "group_figures",
    ):
        assert re.search(rf"submitted with SLURM jobid \d+ \(log: .*/{rule}", smoke), rule
    assert not re.search(r"submitted with .*rule_(prepare|resolve|fit_law|score|figure)/", smoke)
    assert slurm.run("squeue", "--noheader", "--states=PENDING,RUNNING") == ""


@pytest.fixture(scope="module")
def disturbed(slurm, local):
    """Four trainings: cancelled, killed at its time limit, on a node that dies, on two nodes; and local ones.

    Most of it is waiting for Slurm, during which `local` runs.
    """
    for name, nodes in (("disturbed", 2), ("calm", 1)):
        (slurm.root / f"{name}.yaml").write_text(experiment(nodes))
    calm = ("training", "--config", "experiment=calm.yaml", "results=calm")
    slurm.snakemake("calm.log", *LOCAL, *calm)
    log = "disturbed.log"
    process = slurm.begin(log, *SLURM, "training", "--config", "experiment=disturbed.yaml")
    cancelled, limited, stranded = SINGLE
    jobs = {run: started(slurm, run) for run in SINGLE}
    # A trainer that is held cannot answer SIGTERM, so that SIGKILL has to end it, nor finish before its node dies.
    held = [Hold(trainer(slurm, jobs[run])) for run in (limited, stranded)]
    deadline = Path(f"/proc/{held[1].pid}/cmdline").read_text().split("\0")
    slurm.run("scontrol", "update", f"JobId={jobs[limited]}", "TimeLimit=1")
    slurm.run("scancel", jobs[cancelled])
    wait_for_limit(slurm, jobs[limited])
    held[0].ended()
    node = slurm.run("squeue", "--noheader", f"--jobs={jobs[stranded]}", "--format=%N").strip()
    slurm.kill_node(node)
    held[1].ended()
    until = time.monotonic() + 90
    while slurm.run("squeue", "--noheader", f"--jobs={jobs[stranded]}", "--states=RUNNING", f"--nodelist={node}"):
        assert time.monotonic() < until, "Slurm has not noticed the dead node"
        time.sleep(0.5)
    slurm.revive_node(node)
    return slurm.finish(process, log), deadline


class Hold(threading.Thread):
    """Keeps a process from running until it is killed; again and again, since Slurm wakes what it ends."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid = pid
        self.start()

    def run(self):
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(self.pid, signal.SIGSTOP)
                time.sleep(0.002)

    def ended(self):
        """Wait until the process is gone."""
        self.join(60)
        assert not self.is_alive(), "the trainer outlived its job"


def wait_for_limit(slurm, job):
    """A minute from the job's start, and up to another until Slurm looks."""
    until = time.monotonic() + 240
    while "JobState=TIMEOUT" not in (state := slurm.run("scontrol", "show", "job", job)):
        assert "JobState=RUNNING" in state or "JobState=COMPLETING" in state, state
        assert time.monotonic() < until, state
        time.sleep(0.5)


def experiment(nodes):
    """Smoke's model, once alone and once on two ranks, with more steps."""
    settings = yaml.safe_load((Path(__file__).parents[2] / "config/experiments/smoke.yaml").read_text())
    settings["models"]["pair"] = settings["models"]["nano"]
    settings["training"] |= {"steps": STEPS, "prompts": 4, "validate_every": 20, "max_response": 12}
    settings["compute"] = {"pair": {"ranks": 2, "nodes": nodes, "sharding": "full"}}
    settings["runs"] = [
        {"models": ["nano"], "train_sets": ["train"], "methods": ["grpo"], "seeds": [1, 2, 3]},
        {"models": ["pair"], "train_sets": ["train"], "methods": ["grpo"], "seeds": [4]},
    ]
    for name in ("figures", "tables"):
        settings.pop(name)
    settings["evaluation"].pop("compare_with")
    return yaml.safe_dump(settings)


def started(slurm, run):
    """The job that trains a run, once it has a checkpoint."""
    job, until = slurm.job(run), time.monotonic() + 300
    while True:
        assert time.monotonic() < until
        time.sleep(0.1)
        owner = f"process {trainer(slurm, job)} on "
        for lock in slurm.root.glob("results/store/*/lock"):
            if lock.read_text().startswith(owner) and any(lock.parent.glob("checkpoints/step-*")):
                return job


def trainer(slurm, job):
    """The process that trains in a job, if it is there already."""
    for pid in slurm.processes(f"SLURM_JOB_ID={job}"):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[1:4] == [b"-m", b"entropy_mechanism", b"train"]:
            return pid
    return None


@pytest.mark.parametrize("run", [*SINGLE, PAIR])
def test_a_training_ends_with_the_bits_of_a_local_one_whatever_happened_to_its_job(slurm, disturbed, run):
    frames = [untimed(pd.read_parquet(slurm.root / f"{place}/runs/{run}/metrics.parquet"))
              for place in ("calm/calm", "results/disturbed")]  # fmt: skip
    assert len(frames[0]) == STEPS + 1
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    manifests = [json.loads((slurm.root / f"{place}/runs/{run}/manifest.json").read_text())
                 for place in ("calm/calm", "results/disturbed")]  # fmt: skip
    assert manifests[0]["digests"] == manifests[1]["digests"]
    assert manifests[0]["fingerprint"] == manifests[1]["fingerprint"]


def test_stopped_jobs_were_submitted_again_and_went_on(slurm, disturbed):
    records = [read_record(path) for path in record_paths(slurm.root / "results")]
    for run in SINGLE:
        attempts = [record.status for record in records if (record.stage, record.key) == ("train", run)]
        assert len(attempts) >= 2, run
        assert "FINISHED" in attempts, run
        log = (slurm.root / f"results/disturbed/logs/train/{run}.log").read_text()
        assert "going on from step" in log or "nothing to train" in log, run
    log = (slurm.root / f"results/disturbed/logs/train/{SINGLE[1]}.log").read_text()
    assert "going on from step" in log  # killed at its limit, in the middle of a step


def test_a_job_knows_its_deadline(disturbed):
    words = disturbed[1]
    assert float(words[words.index("--deadline-seconds") + 1]) == 240 * 60 - 300


def test_smoke_on_slurm_gives_the_files_of_a_local_run(slurm, smoke, local):
    slurm.finish(local, "local.log")
    here, there = slurm.root / "local/smoke", slurm.root / "results/smoke"
    names = {path.relative_to(here) for path in here.rglob("*") if path.is_file() and "logs" not in path.parts}
    assert names == {
        path.relative_to(there) for path in there.rglob("*") if path.is_file() and "logs" not in path.parts
    }
    compared = 0
    for name in names:
        one, two = here / name, there / name
        if name.suffix == ".parquet":
            frames = [untimed(pd.read_parquet(path)) for path in (one, two)]
            pd.testing.assert_frame_equal(*frames, check_exact=True)
        elif name.name == "manifest.json":
            assert untimed(json.loads(one.read_text())) == untimed(json.loads(two.read_text()))
        elif name.suffix in (".csv", ".md", ".safetensors") or name.name == "run.yaml":
            assert one.read_bytes() == two.read_bytes(), name
        else:
            continue
        compared += 1
    assert compared > 60


def untimed(values):
    """Without what depends on the clock, or on where results stand."""
    names = [
        name for name in values if name.startswith(("time/", "throughput/")) or name in ("seconds", "weights")
    ]
    if isinstance(values, dict):
        return {name: value for name, value in values.items() if name not in names}
    return values.drop(columns=names)


def test_a_permanent_error_is_submitted_once_though_retries_are_left(slurm):
    settings = yaml.safe_load((Path(__file__).parents[2] / "config/experiments/smoke.yaml").read_text())
    settings["training"] |= {"learning_rate": 1e30, "max_skipped_updates": 0}
    settings["runs"] = [{"models": ["nano"], "train_sets": ["train"], "methods": ["grpo"], "seeds": [1]}]
    settings["evaluation"].pop("compare_with")
    for name in ("figures", "tables"):
        settings.pop(name)
    (slurm.root / "broken.yaml").write_text(yaml.safe_dump(settings))
    arguments = (*SLURM, "--retries", "5", "training", "--config", "experiment=broken.yaml")
    process = slurm.begin("broken.log", *arguments)
    assert process.wait(400) == 1
    text = (slurm.root / "broken.log").read_text()
    assert len(re.findall(r"submitted with SLURM jobid \d+ \(log: .*/rule_train/", text)) == 1, text
    assert "Trying to restart job" not in text
