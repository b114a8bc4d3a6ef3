"""The stages that use vLLM: an engine that dies, one that cannot start, and answers to a benchmark."""

import copy
import math
import subprocess
import sys

import pandas as pd
import pytest
from vllm_workplace import EXPERIMENT

pytestmark = pytest.mark.vllm

DYING = """
import sys
from entropy_mechanism import cli
from entropy_mechanism.rollouts.vllm_engine import VllmEngine
start = VllmEngine.__init__
def dying(self, *arguments, **options):
    start(self, *arguments, **options)
    execute, left = self.llm.llm_engine.step, 150
    def step():
        nonlocal left
        left -= 1
        if left == 0:
            raise RuntimeError("a worker died")
        return execute()
    self.llm.llm_engine.step = step
VllmEngine.__init__ = dying
cli.main(sys.argv[1:])
"""


def test_an_engine_that_dies_ends_the_run_with_one_line_and_a_usable_checkpoint(workplace):
    name = "dying"
    command = workplace.command(name, workplace.variant(name, steps=9))
    done = subprocess.run(
        [sys.executable, "-c", DYING, *command], cwd=workplace.root, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: vLLM failed to generate: RuntimeError: a worker died; start the run again")
    assert not list(workplace.root.glob(f"{name}/store/*/failed.json"))
    assert 3 <= len(workplace.rows(name)) < 9
    assert "going on from step" in workplace.run(*command)
    assert len(workplace.rows(name)) == 10


def test_a_head_size_without_kernel_ends_the_run_for_good(workplace):
    name = "small-heads"
    experiment = copy.deepcopy(EXPERIMENT)
    experiment["models"]["nano"] |= {"heads": 4, "warmup": {"steps": 1, "operands": [2, 3], "problems": 100}}
    path = workplace.write(experiment, name)
    workplace.run("make-model", "--experiment", path, "--model", "nano", "--output", "small-heads/model.json")
    command = [
        part.replace("model/manifest.json", "small-heads/model.json") for part in workplace.command(name, path)
    ]
    printed = workplace.run(*command, status=1)
    assert "Traceback" not in printed
    assert "its heads have size 16; allowed: 32, 64" in printed.splitlines()[-1]
    (failed,) = workplace.root.glob(f"{name}/store/*/failed.json")
    assert "its heads have size 16" in failed.read_text()


def test_evaluation_uses_the_engine_too(workplace):
    frames = {}
    for name, experiment in (("vllm", None), ("transformers", workplace.variant("transformers", {}))):
        output = workplace.root / f"samples-{name}.parquet"
        workplace.run(
            *("sample", "--experiment", experiment or workplace.experiment, "--policy", "model/manifest.json"),
            *("--model", "nano", "--problems", "test=test.parquet", "--outputs", f"test={output}"),
            *("--store", "store", "--key", "nano--base"),
        )
        frames[name] = pd.read_parquet(output)
    assert len(list((workplace.root / "store/samples").glob("*.parquet"))) == 2  # none was taken for the other
    columns = ["problem_id", "decoding", "sample"]
    assert frames["vllm"][columns].equals(frames["transformers"][columns])
    greedy, sampled = (
        [frame[frame["decoding"] == decoding]["response"].reset_index(drop=True) for frame in frames.values()]
        for decoding in ("greedy", "sampled")
    )
    assert (greedy[0] == greedy[1]).mean() > 0.95
    assert (sampled[0] == sampled[1]).mean() < 0.9
    lengths = [frame["tokens"].mean() for frame in frames.values()]
    assert math.isclose(*lengths, rel_tol=0.1)
