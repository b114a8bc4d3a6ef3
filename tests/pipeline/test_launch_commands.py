"""What a dry run shows of the trainings of the paper, and that docs/hpc.md shows the same."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = (REPOSITORY / "docs/hpc.md").read_text()


def test_the_papers_runs_show_how_they_are_launched_and_the_document_explains_it(workspace):
    text = workspace.snakemake("-n", "-p", "training", "--config", "experiment=paper", "gpu_type=h100").stdout
    shown = {}
    for place, command in re.findall(r"Training (.*)\nShell command: (.*)", text):
        name, where = place.split(": ", 1)
        shown[name] = (where, command)
    seven, large = shown["qwen2.5-7b--dapo-math--grpo--s1"], shown["qwen2.5-32b--dapo-math--grpo--s1"]
    assert seven[0].startswith("8 ranks on cuda, sharding full, engine vllm (tensor parallel ")
    assert seven[1].startswith("python -m entropy_mechanism train --config ")
    assert large[0] == (
        "4 nodes x 8 = 32 ranks on cuda, sharding full, engine vllm (tensor parallel 4, memory 0.5)"
    )
    start = (
        "srun --nodes=4 --ntasks=4 --ntasks-per-node=1 --cpus-per-task=64 --gres=gpu:h100:8 --kill-on-bad-exit=0 "
    )
    assert large[1].startswith(f"{start}python -m entropy_mechanism train --config ")
    assert large[0] in DOCUMENT
    assert start.replace(":h100", "") in DOCUMENT
    assert "$(time_limit 1440)" in large[1]


def test_what_a_site_sets_reaches_the_launchers_of_several_nodes(workspace):
    changed = ("--set-resources", "train:cpus_per_task=24", "train:gres=gpu:h200:8")
    run = "results/paper/runs/qwen2.5-32b--dapo-math--grpo--s1/metrics.parquet"
    text = workspace.snakemake("-n", "-p", run, *changed, "--config", "experiment=paper").stdout
    assert "srun --nodes=4 --ntasks=4 --ntasks-per-node=1 --cpus-per-task=24 --gres=gpu:h200:8 --kill" in text


def without_vllm(tmp_path):
    """The smoke experiment, whose model would answer with vLLM."""
    settings = yaml.safe_load((REPOSITORY / "config/experiments/smoke.yaml").read_text())
    settings["compute"] = {"nano": {"engine": "vllm"}}
    path = tmp_path / "answers-with-vllm.yaml"
    path.write_text(yaml.safe_dump(settings))
    return f"experiment={path}"


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is there")
def test_jobs_that_need_vllm_are_refused_where_there_is_none_before_anything_runs(workspace, tmp_path):
    experiment = without_vllm(tmp_path)
    refused = workspace.snakemake("training", "--config", experiment, check=False)
    assert refused.returncode == 1
    (line,) = [line for line in refused.stdout.splitlines() if "no vLLM" in line]
    assert "compute.nano asks for engine vllm" in line
    assert "`make slurm GPU=1`" in line
    assert not (workspace.results / "answers-with-vllm").exists()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is there")
def test_without_vllm_plans_are_shown_and_jobs_run_that_do_not_need_it(workspace, tmp_path):
    experiment = without_vllm(tmp_path)
    assert "train" in workspace.planned("training", "--config", experiment)
    workspace.snakemake("data", "--config", experiment)
    assert list((workspace.results / "answers-with-vllm").glob("data/*"))
