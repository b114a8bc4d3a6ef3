"""Log-probabilities of the rollout engine and of the trainer: checked, logged, and used as importance weights."""

import copy
import math

import pytest
import torch
from training_cases import QUESTIONS, config_for, grade_even, trainer_for, weights

from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rl.batch import Rollout, Sequences
from entropy_mechanism.rl.errors import ParityError
from entropy_mechanism.rl.logprobs import TokenStatistics
from entropy_mechanism.rl.loop import Hooks, Trainer
from entropy_mechanism.rl.measurements import check_parity
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine


def test_an_engine_with_other_weights_is_noticed(policy, tmp_path):
    stale = copy.deepcopy(policy)
    with torch.no_grad():
        stale.lm_head.weight.mul_(1.1)
    hooks = Hooks(row=lambda row: None, stop=lambda: False, warn=lambda text: None)
    trainer = Trainer(
        config_for(),
        policy,
        TransformersEngine(stale, 40),
        grade_even,
        QUESTIONS,
        QUESTIONS[:5],
        (1,),
        tmp_path,
        hooks,
    )
    with pytest.raises(ParityError, match="step 0: log-probabilities of rollout engine and trainer differ"):
        trainer.step()


def test_mismatch_metrics_are_those_of_the_importance_weights(policy):
    sequences = Sequences([[2, 3], [4]], [[5, 6, 7], [8]])
    trainer = torch.tensor([-1.0, -2.0, -0.5, -3.0])
    engine = torch.tensor([-1.02, -1.97, -0.5, -3.05])
    rollout = Rollout(
        prompts=sequences.prompts,
        responses=sequences.responses,
        engine_logprobs=[engine[:3].tolist(), engine[3:].tolist()],
        rewards_PG=torch.zeros(1, 2),
        questions=[0, 0],
    )
    found = check_parity(rollout, TokenStatistics(trainer, torch.zeros(4)), "bfloat16", 0)
    ratio = [math.exp(x) for x in (0.02, -0.03, 0.0, 0.05)]
    expected = {
        "mismatch/k1": (-0.02 + 0.03 - 0.0 - 0.05) / 4,
        "mismatch/k3": sum(r - 1 - math.log(r) for r in ratio) / 4,
        "mismatch/max": 0.05,
        "mismatch/effective_sample_size": sum(ratio) ** 2 / sum(r * r for r in ratio) / 4,
    }
    assert found == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ParityError, match=r"step 3: .* differ by up to 5.00e-02 nats"):
        check_parity(rollout, TokenStatistics(trainer, torch.zeros(4)), "float32", 3)


def test_parity_is_checked_and_logged_also_where_no_group_has_a_signal(policy, tmp_path):
    rows = []
    right = lambda completions, questions: [Outcome.CORRECT] * len(completions)  # noqa: E731
    trainer_for(policy, config_for(), tmp_path, rows, grader=right).step()
    assert rows[0]["rollout/kept_groups"] == 0
    assert 0 <= rows[0]["mismatch/max"] < 1e-4
    assert rows[0]["mismatch/effective_sample_size"] == pytest.approx(1, abs=1e-6)


class OtherEngine(TransformersEngine):
    """Claims log-probabilities that are off by some rounding, another for every token."""

    def generate(self, prompts, sampling, seeds):
        groups = super().generate(prompts, sampling, seeds)
        for completion in (completion for group in groups for completion in group):
            completion.logprobs[:] = [value - (i % 3) * 2e-4 for i, value in enumerate(completion.logprobs)]
        return groups


def test_a_run_without_a_cap_ignores_the_engines_logprobs_and_one_with_it_uses_them(policy, tmp_path):
    ends = []
    for engine, cap in ((TransformersEngine, None), (OtherEngine, None), (OtherEngine, 2.0)):
        model, rows = copy.deepcopy(policy), []
        hooks = Hooks(row=rows.append, stop=lambda: False, warn=lambda text: None)
        places = (grade_even, QUESTIONS, QUESTIONS[:5], (1,), tmp_path / f"{len(ends)}", hooks)
        Trainer(config_for(importance_cap=cap), model, engine(model, 40), *places).train()
        ends.append(weights(model))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[1], ends[2])


def test_an_engine_with_a_model_of_its_own_gets_the_weights_of_every_update(policy, tmp_path):
    own = copy.deepcopy(policy)
    hooks = Hooks(row=lambda row: None, stop=lambda: False, warn=lambda text: None)
    places = (grade_even, QUESTIONS, QUESTIONS[:5], (1,), tmp_path, hooks)
    trainer = Trainer(config_for(filter_groups=False), policy, TransformersEngine(own, 40), *places)
    before = weights(own).clone()
    trainer.train()  # checks their parity at every step
    assert torch.equal(weights(own), weights(policy))
    assert not torch.equal(weights(own), before)
