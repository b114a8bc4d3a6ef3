"""Training with `compute: {engine: vllm}`, beside the transformers engine: it learns, alike, and goes on."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind
from vllm_workplace import EXPERIMENT

pytestmark = pytest.mark.vllm

SEEDS = (1, 2, 3)
LAST = 10
"""Steps at the end of a run over which reward and entropy are averaged."""
REWARD, ENTROPY = "reward/mean", "entropy/token_mean/before_filter"


@pytest.fixture(scope="module")
def runs(workplace):
    """Metrics of the same runs with either engine, by engine and seed."""
    other = workplace.variant("transformers", {})
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
    frame = workplace.train("two-ranks", workplace.variant("two-ranks", compute, steps=3))
    assert frame["mismatch/max"].max() < 1e-4
    for quantity in (REWARD, ENTROPY, "length/mean", "policy/gradient_norm"):
        found, alone = frame[quantity].head(3), runs["vllm"][0][quantity].head(3)
        assert found.tolist() == pytest.approx(alone.tolist(), rel=1e-3)


def test_a_killed_run_goes_on_after_an_attempt_without_memory(workplace, runs):
    name, steps = "killed", 14
    experiment = workplace.variant(name, steps=steps)
    command = [sys.executable, "-m", "entropy_mechanism", *workplace.command(name, experiment)]
    process = subprocess.Popen(command, cwd=workplace.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 200
    while len(list(workplace.root.glob(f"{name}/store/*/checkpoints/step-000006"))) == 0:
        assert time.monotonic() < give_up
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(workplace.rows(name)) < steps
    greedy = workplace.variant("no-memory", {"engine": "vllm", "vllm_memory": 0.999}, steps=steps)
    printed = workplace.run(*workplace.command(name, greedy), status=1)
    assert "Traceback" not in printed
    assert printed.splitlines()[-1].startswith("error: vLLM had too little memory to start: ")
    assert not list(workplace.root.glob(f"{name}/store/*/failed.json"))
    printed = workplace.run(*workplace.command(name, experiment))
    assert "going on from step" in printed
    frame, whole = pd.read_parquet(workplace.root / name / "metrics.parquet"), runs["vllm"][0].head(steps + 1)
    assert frame[REWARD].tolist() == whole[REWARD].tolist()
    assert frame[ENTROPY].tolist() == pytest.approx(whole[ENTROPY].tolist(), abs=1e-4)


def test_truncated_importance_sampling_changes_nothing_to_speak_of_in_float32(workplace, runs):
    capped = workplace.train("capped", workplace.variant("capped", steps=2, importance_cap=2.0))
    for quantity in (REWARD, ENTROPY, "policy/loss", "policy/gradient_norm"):
        plain = runs["vllm"][0][quantity].head(2)
        assert capped[quantity].head(2).tolist() == pytest.approx(plain.tolist(), rel=1e-2, abs=1e-4)
