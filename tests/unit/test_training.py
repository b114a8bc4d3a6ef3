"""The training loop on a random policy: rows, metrics, estimators, updates that are skipped."""

import copy
import math

import pytest
import torch
from random_policies import random_policy
from training_cases import FULL_KL, OBJECTIVES, config_for, mini_batch, trainer_for, weights

from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rl import loop
from entropy_mechanism.rl.errors import DivergenceError
from entropy_mechanism.rl.policy import Policy
from entropy_mechanism.rl.update import update


def test_dropout_is_off_so_that_an_update_begins_at_the_policy_that_sampled(policy, tmp_path, monkeypatch):
    for layer in policy.model.layers:
        layer.self_attn.attention_dropout = 0.5
    policy.train()
    config = config_for(updates=1, filter_groups=False, micro_batch_tokens=10_000)
    # `first` would take what the update reads for what was measured before it.
    measured = lambda *a: update(*a[:6], False, a[7])  # noqa: E731
    monkeypatch.setattr(loop, "update", measured)
    rows = []
    trainer_for(policy, config, tmp_path, rows).step()
    assert rows[0]["policy/absolute_log_ratio"] < 1e-5


@pytest.mark.parametrize(("objective", "estimator"), [("gspo", "grpo"), ("clip-cov", "prime"), ("kl-cov", "rloo")])
def test_responses_of_one_token_train_without_a_value_that_is_not_finite(policy, tmp_path, objective, estimator):
    rows = []
    config = config_for(objective, estimator=estimator, max_response=1, steps=2, filter_groups=False)
    trainer_for(policy, config, tmp_path, rows).train()
    assert rows[0]["length/max"] == 1
    for name, value in rows[0].items():
        assert value is None or math.isfinite(value) or name.startswith("selection/"), name
    assert rows[0]["policy/gradient_norm"] > 0


def test_the_full_kl_penalty_holds_on_to_the_policy_that_sampled(policy, tmp_path):
    trainer = trainer_for(policy, config_for(FULL_KL, filter_groups=False), tmp_path, [])
    for _ in range(2):
        before = weights(trainer.policy.model)
        trainer.step()
        trainer.state.step += 1
        assert torch.equal(weights(trainer.old_policy.model), before)
        assert not torch.equal(weights(trainer.policy.model), before)


def test_skipped_updates_of_the_reward_model_count(policy, tmp_path, monkeypatch):
    config = config_for(estimator="prime", max_skipped_updates=1, filter_groups=False)
    trainer = trainer_for(policy, config, tmp_path, [])
    skipped = {"reward_model/skipped_updates": 1.0}
    monkeypatch.setattr(trainer.reward_model, "update", lambda sequences, right_B: skipped)
    with pytest.raises(DivergenceError, match=r"step 1: 2 updates .*allowed: 1"):
        trainer.train()


def test_too_many_gradients_that_are_not_finite_end_the_run(policy, tmp_path, monkeypatch):
    rows = []
    config = config_for(max_skipped_updates=3, filter_groups=False)
    trainer = trainer_for(policy, config, tmp_path, rows)
    monkeypatch.setattr(
        trainer, "advantages", lambda rollout: torch.full((sum(map(len, rollout.responses)),), torch.nan)
    )
    before = weights(policy).clone()
    with pytest.raises(DivergenceError, match=r"step 1: 4 updates .*allowed: 3"):
        trainer.train()
    assert torch.equal(weights(policy), before)
    assert rows[0]["policy/skipped_updates"] == 2


def test_every_step_has_a_row_and_the_last_one_is_measured_only(policy, tmp_path):
    rows = []
    trainer_for(policy, config_for(), tmp_path, rows).train()
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["validation/accuracy"] is not None for row in rows] == [True, False, True, False, True]
    assert "policy/loss" in rows[3]
    assert "policy/loss" not in rows[4]
    assert rows[4]["gradient_steps"] == sum("policy/loss" in row for row in rows) * 2


def test_validation_is_of_the_policy_before_the_rows_update(policy, tmp_path):
    rows = []
    trainer = trainer_for(policy, config_for(validate_every=1), tmp_path, rows)
    before = trainer.validate()
    trainer.step()
    assert rows[0]["validation/accuracy"] == before


def test_entropy_is_of_the_policy_before_the_rows_update(policy, tmp_path):
    rows, before = [], Policy(copy.deepcopy(policy))
    trainer = trainer_for(policy, config_for(filter_groups=False), tmp_path, rows)
    sequences = trainer.collector.collect(step=0, cursor=0).first.sequences
    expected = before.measure(sequences, 1.0, 64, 10_000).entropy_N.double().mean().item()
    trainer.step()
    for when in ("before_filter", "after_filter"):
        assert rows[0][f"entropy/token_mean/{when}"] == pytest.approx(expected, rel=1e-5)


def test_every_update_draws_with_a_seed_of_its_own(policy, tmp_path, monkeypatch):
    seeds = []
    monkeypatch.setattr(loop, "update", lambda *a: seeds.append(a[4]) or update(*a))
    trainer_for(policy, config_for("clip-cov", filter_groups=False), tmp_path, []).train()
    assert len(seeds) == len(set(seeds)) == 8
    draws = []
    for seed in (seeds[0], seeds[1], seeds[2], seeds[0]):
        model, batch = random_policy(), mini_batch(random_policy())
        config = config_for(OBJECTIVES["clip-cov"] | {"covariance_low": -50.0})
        _, tokens = update(Policy(model), torch.optim.SGD(model.parameters(), lr=0.1), batch, config, seed)
        draws.append(tuple(tokens.selected.tolist()))
    assert draws[0] == draws[3]
    assert len(set(draws)) == 3


@pytest.mark.parametrize("estimator", ["grpo", "rloo", "reinforce++", "reinforce++-baseline", "prime"])
def test_every_estimator_trains_without_a_value_that_is_not_finite(policy, tmp_path, estimator):
    rows = []
    config = config_for(estimator=estimator, regularisation={"entropy": 1e-3, "reference_kl": 1e-2})
    trainer_for(policy, config, tmp_path, rows).train()
    trained = [row for row in rows if "policy/loss" in row]
    assert trained
    assert all(math.isfinite(value) for row in trained for value in row.values() if value is not None)
    assert sum(row["policy/skipped_updates"] for row in trained) == 0


def test_learning_raises_the_reward(policy, tmp_path):
    rows = []
    trainer_for(policy, config_for(steps=12, filter_groups=False), tmp_path, rows).train()
    assert rows[-1]["reward/mean"] > rows[0]["reward/mean"] + 0.2


def test_a_step_without_any_signal_measures_and_leaves_the_weights_alone(policy, tmp_path):
    rows = []
    grader = lambda completions, questions: [Outcome.WRONG] * len(completions)  # noqa: E731
    before = weights(policy).clone()
    trainer_for(policy, config_for(steps=1), tmp_path, rows, grader=grader).train()
    assert torch.equal(weights(policy), before)
    assert rows[0]["rollout/kept_groups"] == 0
    assert rows[0]["entropy/sequence_mean/before_filter"] > 0
    assert "policy/loss" not in rows[0]
