"""Every algorithm, objective and preset is an entry of the experiment `tiny-full`, and trains on the tiny task."""

import copy
import math
from pathlib import Path
from typing import get_args

import pytest
import torch

from entropy_mechanism.config import Advantage, KlCov, Regularisation, Selection, load_experiment
from entropy_mechanism.data.arithmetic import generate
from entropy_mechanism.data.problems import to_frame
from entropy_mechanism.methods import PRESETS
from entropy_mechanism.models.tiny import build_tokenizer, warm_up
from entropy_mechanism.plan import Plan
from entropy_mechanism.rewards.grading import Grader
from entropy_mechanism.rl.loop import Hooks, Trainer
from entropy_mechanism.rl.objectives import OBJECTIVES
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine
from entropy_mechanism.stages.runtime import completion_grader, questions

CONFIG = Path(__file__).parents[2] / "config/experiments"
EXPERIMENT = load_experiment(CONFIG / "tiny-full.yaml")
PLAN = Plan(EXPERIMENT)


def options(model, field):
    return set(get_args(model.model_fields[field].annotation))


def test_tiny_full_lists_every_algorithm_objective_option_and_preset():
    methods = [EXPERIMENT.methods[run.method] for run in PLAN.runs.values()]
    assert {m.advantage.estimator for m in methods} == options(Advantage, "estimator") - {"own"}
    assert {m.objective.name for m in methods} == set(OBJECTIVES) - {"own"}
    assert {m.preset for m in methods} == {None, *PRESETS}
    assert {m.objective.penalty for m in methods if m.objective.name == "kl-cov"} == options(KlCov, "penalty")
    referred = {m.regularisation.kl_estimator for m in methods if m.regularisation.reference_kl}
    assert referred == options(Regularisation, "kl_estimator")
    assert {m.objective.scope for m in methods if isinstance(m.objective, Selection)} == options(
        Selection, "scope"
    )
    assert {m.objective.dual_clip for m in methods if m.objective.name == "ppo-clip"} >= {None, 3.0}
    assert any(m.regularisation.entropy for m in methods)
    assert {m.aggregation for m in methods} == {"token-mean", "micro-batch-mean", "sequence-mean", "constant"}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Tokenizer, a base model of a few seconds, and problems of the tiny task."""
    torch.set_num_threads(1)
    smoke = load_experiment(CONFIG / "smoke.yaml")
    tokenizer = build_tokenizer()
    base = warm_up(smoke.models["nano"], tokenizer).model
    path = tmp_path_factory.mktemp("task") / "train.parquet"
    to_frame(generate(smoke.data["train"])).to_parquet(path)
    return tokenizer, base, questions(path, tokenizer)


FIRST = {run.method: name for name, run in reversed(PLAN.runs.items())}
"""A run of each method."""


@pytest.mark.parametrize("name", FIRST.values(), ids=lambda name: name.split("--")[2])
def test_every_method_trains_on_the_tiny_task_without_a_value_that_is_not_finite(task, tmp_path, name):
    tokenizer, base, problems = task
    run = PLAN.run_config(name)
    changes = {"steps": 3, "prompts": 8, "samples": 8, "micro_batch_tokens": 600, "checkpoint_every": 10}
    run = run.model_copy(update={"training": run.training.model_copy(update=changes)})
    model, rows = copy.deepcopy(base), []
    engine = TransformersEngine(model, len(tokenizer))
    hooks = Hooks(row=rows.append, stop=lambda: False, warn=print)
    places = (problems, problems[:8], (tokenizer.eos_token_id,), tmp_path / "checkpoints", hooks)
    with Grader() as grader:
        Trainer(run, model, engine, completion_grader(grader, tokenizer), *places).train()
    trained = [row for row in rows if "policy/loss" in row]
    assert len(trained) == 3
    for row in trained:
        assert row["policy/skipped_updates"] == 0
        # the composition of a selection is undefined where nothing was selected
        unknown = [key for key, value in row.items() if value is not None and not math.isfinite(value)]
        assert row.get("selection/count") == 0 or not unknown, unknown
        assert all(key.startswith("selection/") for key in unknown)
    assert all(weight.isfinite().all() for weight in model.parameters())
    assert any(not torch.equal(new, old) for new, old in zip(model.parameters(), base.parameters(), strict=True))
