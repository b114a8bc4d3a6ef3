"""docs/extending.md, followed from top to bottom: files as they stand there, additions to my.yaml, commands."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from repository import Workspace, copy_repository

TINY = "config/experiments/tiny.yaml"
PAGE = Path(__file__).parents[2] / "docs/extending.md"
QSUB = """#!/bin/sh
# Stands for a batch system: options that the page's command gives, then the job's script, which is run at once.
for script; do :; done
echo "$@" >> "$QSUB_LOG"
sh "$script" > "$script.out" 2>&1 &
echo $!
"""


def added(base, change):
    """`change` added to `base`: keys merged, lists appended."""
    if isinstance(base, dict) and isinstance(change, dict):
        return base | {key: added(base[key], value) if key in base else value for key, value in change.items()}
    return base + change if isinstance(base, list) else change


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The workspace after everything that the page says was done in it."""
    workspace = Workspace(copy_repository(tmp_path_factory.mktemp("extending")))
    bin = Path(sys.executable).parent
    tools = workspace.root / "tools"
    tools.mkdir()
    (tools / "qsub").write_text(QSUB)
    (tools / "qsub").chmod(0o755)
    environment = workspace.environment | {
        "PATH": f"{tools}:{bin}:{os.environ['PATH']}",
        "SNAKEMAKE_PROFILE": str(workspace.root / "workflow/profiles/local"),
        "QSUB_LOG": str(tools / "qsub.log"),
    }
    blocks = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 20
    for language, name, content in blocks:
        if name:
            (workspace.root / name).parent.mkdir(exist_ok=True)
            (workspace.root / name).write_text(content)
        elif language == "yaml":
            path = workspace.root / "my.yaml"
            path.write_text(yaml.safe_dump(added(yaml.safe_load(path.read_text()), yaml.safe_load(content))))
        else:
            assert language == "console"
            done = subprocess.run(
                ["bash", "-ec", content],
                cwd=workspace.root,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=400,
            )
            assert done.returncode == 0, f"{content}{done.stdout[-4000:]}"
    return workspace


def science(workspace, run):
    return yaml.safe_load((workspace.results / f"my/runs/{run}/run.yaml").read_text())


@pytest.mark.parametrize("method", ["soft-clip", "median"])
def test_own_objective_and_estimator_train(followed, method):
    metrics = pd.read_parquet(followed.results / f"my/runs/nano--train--{method}--s1/metrics.parquet")
    assert metrics["policy/gradient_norm"].max() > 0
    assert metrics["policy/skipped_updates"].sum() == 0


def test_a_run_says_what_code_it_was_made_with(followed):
    objective = science(followed, "nano--train--soft-clip--s1")["objective"]
    digest = hashlib.sha256((followed.root / "my_objective.py").read_bytes()).hexdigest()
    assert objective == {
        "name": "own",
        "code": "my_objective.py:soft_clip",
        "options": {"width": 0.3},
        "sha256": digest,
    }


def test_own_problems_are_a_data_set_and_a_benchmark(followed):
    problems = pd.read_parquet(followed.results / "my/data/mine.parquet")
    assert problems[["problem", "answer"]].values.tolist() == [["1+2", "3"], ["9-4", "5"], ["7+8", "5"]]
    scores = pd.read_parquet(followed.results / "my/evaluation/nano--base/scores.parquet")
    mine = scores[scores["benchmark"] == "mine"].set_index("protocol")
    assert mine["problems"].to_dict() == {"greedy": 3, "avg@4": 3}


def test_an_own_model_trains(followed):
    manifest = json.loads((followed.results / "my/runs/mine--train--grpo--s1/manifest.json").read_text())
    ours = json.loads((followed.results / "my/models/nano/manifest.json").read_text())
    assert manifest["parameters"] == ours["parameters"]
    assert manifest["digests"]["model.safetensors"] != ours["digests"]["model.safetensors"]


def test_an_own_figure_is_drawn_of_its_runs(followed):
    drawn = pd.read_csv(followed.results / "my/figures/own_length.csv")
    assert set(drawn["series"]) == {"soft-clip", "median"}
    description = json.loads((followed.results / "my/figures/own_length.json").read_text())
    assert description["title"] == "Length of responses"
    assert (followed.results / "my/figures/own_length.pdf").read_bytes().startswith(b"%PDF")


def test_jobs_reach_another_batch_system_with_what_they_ask_for(followed):
    lines = (followed.root / "tools/qsub.log").read_text().splitlines()
    assert len(lines) == 1  # fit_law: all it needs was there
    assert all(line.startswith("-l ncpus=1 -l mem=4000mb -l walltime=30:00 ") for line in lines)
    assert (followed.results / "my/analysis/nano--train--soft-clip--s1/law.parquet").is_file()


def test_another_workflow_uses_this_one_as_a_module(followed):
    outer = followed.root / "outer"
    assert (outer / "count.txt").read_text().strip() == '"kept": 300,'
    assert sorted(path.name for path in outer.iterdir() if path.name[0] != ".") == [
        "Snakefile",
        "count.txt",
        "entropy-results",
    ]


def test_changed_code_makes_its_own_runs_and_figures_again_and_no_others(followed):
    targets = [f"results/my/runs/nano--train--{method}--s1/manifest.json" for method in ("soft-clip", "median")]
    arguments = (*targets, "own_length", "--config", "experiment=my.yaml")
    assert followed.planned(*arguments) == {}
    for name, jobs in {
        "my_objective.py": {"resolve": 1, "train": 1, "collect_curves": 1, "figure": 1, "own_length": 1},
        "my_figure.py": {"figure": 1, "own_length": 1},
    }.items():
        path = followed.root / name
        before = path.read_text()
        path.write_text(f"{before}\n")
        try:
            assert followed.planned(*arguments) == jobs
        finally:
            path.write_text(before)


def test_changed_problems_are_prepared_again(followed):
    path, arguments = (
        followed.root / "my_problems.jsonl",
        ("results/my/data/mine.parquet", "--config", "experiment=my.yaml"),
    )
    assert followed.planned(*arguments) == {}
    before = path.read_text()
    path.write_text(before + '{"problem": "1+1", "answer": 2}\n')
    try:
        assert followed.planned(*arguments) == {"prepare": 1}
    finally:
        path.write_text(before)


def test_a_whole_outer_workflow_can_be_planned(followed):
    planned = followed.planned("entropy_all", "--directory", "outer", "--snakefile", "outer/Snakefile")
    assert planned["entropy_train"] == 3
    assert planned["entropy_report"] == 1


EXAMPLE = "examples/covariance_weighted/covariance_weighted.yaml"


def test_the_example_compares_its_objective_with_clip_cov_in_the_tiny_study():
    example, tiny = (yaml.safe_load((PAGE.parents[1] / path).read_text()) for path in (EXAMPLE, TINY))
    for section in ("training", "validation"):
        assert example[section] == tiny[section]
    for section, names in {
        "data": example["data"],
        "models": ["width64"],
        "methods": ["grpo", "clip-cov"],
    }.items():
        assert {name: example[section][name] for name in names} == {name: tiny[section][name] for name in names}
    assert example["methods"].keys() - tiny["methods"].keys() == {"covariance-weighted"}


def test_the_example_runs_at_smoke_scale(workspace):
    path = workspace.root / EXAMPLE
    small = yaml.safe_load(path.read_text())
    smoke = yaml.safe_load((workspace.root / "config/experiments/smoke.yaml").read_text())
    small["models"]["width64"] = smoke["models"]["nano"]
    small["training"] |= {name: smoke["training"][name] for name in ("steps", "prompts", "samples", "updates")}
    small["training"] |= {"validate_every": 1, "checkpoint_every": 2}
    for settings in small["data"].values():
        settings["problems"] = 40
    small["data"]["train"]["operands"] = small["data"]["validation"]["operands"] = [2, 3]
    small["analysis"] = smoke["analysis"]
    path.write_text(yaml.safe_dump(small))
    workspace.snakemake("--config", f"experiment={EXAMPLE}")
    results = workspace.results / "covariance_weighted"
    drawn = pd.read_csv(results / "figures/own_entropy_and_accuracy.csv")
    assert set(drawn["series"]) == {"grpo", "clip-cov", "covariance-weighted"}
    assert set(drawn["panel"]) == {"entropy", "accuracy"}
    metrics = {
        method: pd.read_parquet(results / f"runs/width64--train--{method}--s1/metrics.parquet")
        for method in set(drawn["series"])
    }
    first = {method: frame["entropy/sequence_mean/after_filter"][0] for method, frame in metrics.items()}
    last = {method: frame["entropy/sequence_mean/after_filter"].iloc[-1] for method, frame in metrics.items()}
    assert len(set(first.values())) == 1
    assert len(set(last.values())) == 3
    assert "covariance-weighted" in (results / "tables/table2.md").read_text()
    page = (results / "report/index.html").read_text()
    assert "Entropy and accuracy by method" in page
    assert "out of date" not in page
