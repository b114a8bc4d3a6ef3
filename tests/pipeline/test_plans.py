"""What the workflow would do for single figures of the large experiments."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from entropy_mechanism.config import load_experiment
from entropy_mechanism.plan import Plan

REPOSITORY = Path(__file__).parents[2]
EXPERIMENTS = REPOSITORY / "config/experiments"


def planned(experiment, target, results):
    """Trainings and models that a target needs, and the processor seconds of planning."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["-m", "snakemake", "-n", target, "--config", f"experiment={experiment}", f"results={results}"]
    done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    text = done.stdout + done.stderr
    found = [
        re.findall(rf"{words} ([^\s:]+)", text)
        for words in ("Training", "Fetching base model", "Warming up base model")
    ]
    return set(found[0]), {*found[1], *found[2]}, seconds


ITEMS = [
    (path.stem, item)
    for path in (EXPERIMENTS / "paper.yaml", EXPERIMENTS / "tiny-full.yaml")
    for item in ("fig01", "fig07", "fig11", "table1")
    if item in {**load_experiment(path).figures, **load_experiment(path).tables}
]


@pytest.mark.parametrize(("experiment", "item"), ITEMS)
def test_a_figure_needs_its_own_runs_and_no_others(experiment, item, tmp_path):
    plan = Plan(load_experiment(EXPERIMENTS / f"{experiment}.yaml"))
    shown = {run.name for run in plan.shown(item)}
    runs, models, seconds = planned(experiment, item, tmp_path)
    assert runs == shown
    assert models == {plan.runs[name].model for name in shown}
    assert seconds < 5


def test_fig11_of_the_paper_is_eight_runs_of_two_models(tmp_path):
    runs, models, _ = planned("paper", "fig11", tmp_path)
    methods = ("grpo", "clip-higher", "clip-cov", "kl-cov")
    assert runs == {f"qwen2.5-7b--dapo-math--{method}--s1" for method in methods} | {
        f"qwen2.5-32b--dapo-math--{method}--s1" for method in (*methods[:3], "kl-cov-32b")
    }
    assert models == {"qwen2.5-7b", "qwen2.5-32b"}


def test_a_run_is_known_by_its_seed_and_answers_its_own_benchmarks(tmp_path):
    settings = yaml.safe_load((EXPERIMENTS / "smoke.yaml").read_text())
    group = {"models": ["nano"], "train_sets": ["train"], "methods": ["grpo"]}
    settings["runs"] = [group | {"seeds": [1, 12], "benchmarks": ["easy"]}, group | {"seeds": [2]}]
    settings["evaluation"].pop("compare_with")
    for name in ("figures", "tables"):
        settings.pop(name)
    (tmp_path / "seeds.yaml").write_text(yaml.safe_dump(settings))

    def dry(target):
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "-n",
            target,
            "--config",
            f"experiment={tmp_path}/seeds.yaml",
        ]
        command.append(f"results={tmp_path}/results")
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    status, text = dry("evaluation")
    assert status == 0, text
    graded = set(re.findall(r"Grading nano--train--grpo--s(\d+) on (\w+)", text))
    assert graded == {("1", "easy"), ("12", "easy"), ("2", "easy"), ("2", "medium"), ("2", "hard")}
    for seed in (3, 21):
        status, text = dry(f"{tmp_path}/results/seeds/runs/nano--train--grpo--s{seed}/manifest.json")
        assert status == 1
        assert f"nano--train--grpo--s{seed}/manifest.json is no file of seeds; did you mean" in text
