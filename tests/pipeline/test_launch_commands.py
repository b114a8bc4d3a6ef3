"""What a dry run shows of the trainings of the paper, and that docs/hpc.md shows the same."""

import re
from pathlib import Path

DOCUMENT = (Path(__file__).parents[2] / "docs/hpc.md").read_text()


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
