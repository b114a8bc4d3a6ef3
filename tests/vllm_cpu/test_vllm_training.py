"""Training and evaluation through their stages with `compute: {engine: vllm}`, beside the transformers engine."""

import copy
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind
from vllm_workplace import EXPERIMENT, Workplace

pytestmark = pytest.mark.vllm

SEEDS = (1, 2, 3)
LAST = 10
"""Steps at the end of a run over which reward and entropy are averaged."""
REWARD, ENTROPY = "reward/mean", "entropy/token_mean/before_filter"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """One for all tests; each names its runs after itself."""
    return Workplace(tmp_path_factory.mktemp("workplace"))


def variant(workplace, name, compute=None, **training):
    """An experiment with other settings of `compute` or of the training."""
    experiment = copy.deepcopy(EXPERIMENT)
    experiment["compute"]["nano"] = {"engine": "vllm"} if compute is None else compute
    experiment["training"] |= training
    return workplace.write(experiment, name)


@pytest.fixture(scope="module")
def runs(workplace):
    """Metrics of the same runs with either engine, by engine and seed."""
    other = variant(workplace, "transformers", {})
    return {
        "vllm": [workplace.train(f"vllm-{seed}", None, seed) for seed in SEEDS],
        "transformers": [workplace.train(f"transformers-{seed}", other, seed) for seed in SEEDS],
    }


def test_a_policy_learns(runs):
    for frame in runs["vllm"]:
        accuracy = frame["validation/accuracy"].dropna()
        assert accuracy.iloc[-1] > accuracy.iloc[0] + 0.1


def test_parity_holds_after_every_update(runs):
    for frame in runs["vllm"]:
        assert len(frame) == EXPERIMENT["training"]["steps"] + 1
        assert frame["mismatch/max"].max() < 1e-4
        assert frame["mismatch/k1"].abs().max() < 1e-5
        assert frame["mismatch/k3"].between(-1e-9, 1e-8).all()
        assert frame["mismatch/effective_sample_size"].between(1 - 1e-6, 1).all()


@pytest.mark.parametrize(("quantity", "largest"), [(REWARD, 0.1), (ENTROPY, 0.06)])
def test_either_engine_gives_the_same_learning_curve(runs, quantity, largest):
    """Welch's test over the seeds, and a bound below what training itself changes."""
    ends = {name: [frame[quantity].tail(LAST).mean() for frame in frames] for name, frames in runs.items()}
    assert ttest_ind(ends["vllm"], ends["transformers"], equal_var=False).pvalue > 0.05
    assert abs(np.mean(ends["vllm"]) - np.mean(ends["transformers"])) < largest
    # They are two engines, not one: other draws.
    assert set(ends["vllm"]).isdisjoint(ends["transformers"])


def test_ranks_that_share_an_engine_train_as_one_does(workplace, runs):
    compute = {"engine": "vllm", "ranks": 2, "tensor_parallel": 2, "sharding": "full"}
    frame = workplace.train("two-ranks", variant(workplace, "two-ranks", compute, steps=3))
    assert frame["mismatch/max"].max() < 1e-4
    for quantity in (REWARD, ENTROPY, "length/mean", "policy/gradient_norm"):
        found, alone = frame[quantity].head(3), runs["vllm"][0][quantity].head(3)
        assert found.tolist() == pytest.approx(alone.tolist(), rel=1e-3)


def test_a_killed_run_goes_on_after_an_attempt_without_memory(workplace, runs):
    name, steps = "killed", EXPERIMENT["training"]["steps"]
    command = [sys.executable, "-m", "entropy_mechanism", *workplace.command(name)]
    process = subprocess.Popen(command, cwd=workplace.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 200
    while len(list(workplace.root.glob(f"{name}/store/*/checkpoints/step-000006"))) == 0:
        assert time.monotonic() < give_up
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(workplace.rows(name)) < steps
    greedy = variant(workplace, "no-memory", {"engine": "vllm", "vllm_memory": 0.999})
    printed = workplace.run(*workplace.command(name, greedy), status=1)
    assert "Traceback" not in printed
    assert printed.splitlines()[-1].startswith("error: vLLM had too little memory to start: ")
    assert not list(workplace.root.glob(f"{name}/store/*/failed.json"))
    printed = workplace.run(*workplace.command(name))
    assert "going on from step" in printed
    frame = pd.read_parquet(workplace.root / name / "metrics.parquet")
    assert frame[REWARD].tolist() == runs["vllm"][0][REWARD].tolist()
    assert frame[ENTROPY].tolist() == pytest.approx(runs["vllm"][0][ENTROPY].tolist(), abs=1e-4)


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
    command = workplace.command(name, variant(workplace, name, steps=9))
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


def test_truncated_importance_sampling_changes_nothing_to_speak_of_in_float32(workplace, runs):
    capped = workplace.train("capped", variant(workplace, "capped", steps=2, importance_cap=2.0))
    for quantity in (REWARD, ENTROPY, "policy/loss", "policy/gradient_norm"):
        plain = runs["vllm"][0][quantity].head(2)
        assert capped[quantity].head(2).tolist() == pytest.approx(plain.tolist(), rel=1e-2, abs=1e-4)


def test_evaluation_uses_the_engine_too(workplace):
    frames = {}
    for name, experiment in (("vllm", None), ("transformers", variant(workplace, "transformers", {}))):
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
