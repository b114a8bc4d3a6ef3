import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entropy_mechanism.config import Advantage
from entropy_mechanism.rl.advantages import ESTIMATORS, grpo

groups = st.integers(2, 6).flatmap(
    lambda size: st.lists(st.lists(st.floats(-1, 1), min_size=size, max_size=size), min_size=1, max_size=5)
)


def estimate(name, rewards, lengths=None, **settings):
    rewards_PG = torch.tensor(rewards, dtype=torch.float64)
    lengths = torch.ones(rewards_PG.numel(), dtype=torch.long) if lengths is None else torch.tensor(lengths)
    sequence_N = torch.repeat_interleave(torch.arange(rewards_PG.numel()), lengths)
    return ESTIMATORS[name](rewards_PG, sequence_N, Advantage(estimator=name, **settings))


@pytest.mark.parametrize(("std", "divisor"), [("sample", 3), ("population", 4)])
def test_grpo_divides_by_the_chosen_standard_deviation(std, divisor):
    rewards = [1.0, 0.0, 0.0, 0.0]
    deviation = (sum((r - 0.25) ** 2 for r in rewards) / divisor) ** 0.5
    found = estimate("grpo", [rewards], std=std)
    assert found.tolist() == pytest.approx([(r - 0.25) / (deviation + 1e-6) for r in rewards], rel=1e-9)


def test_grpo_without_the_deviation_is_dr_grpo():
    assert estimate("grpo", [[1.0, 0.0, 0.0, 0.0]], std="none").tolist() == [0.75, -0.25, -0.25, -0.25]


@pytest.mark.parametrize("name", sorted(ESTIMATORS.keys() - {"own"}))  # test_own_code.py has that
def test_equal_rewards_have_no_advantage(name):
    assert estimate(name, [[1.0] * 8, [1.0] * 8]).abs().max() == 0


def test_prompts_are_normalised_one_by_one():
    alone = estimate("grpo", [[1.0, 0.0]])
    both = estimate("grpo", [[1.0, 0.0], [5.0, 1.0]])
    assert torch.equal(alone, both[:2])


def test_a_rollout_of_one_token_has_no_spread_and_no_advantage():
    assert estimate("reinforce++", [[1.0]]).tolist() == [0]


@pytest.mark.parametrize("name", ["grpo", "rloo", "reinforce++-baseline"])
def test_a_group_of_one_is_refused(name):
    with pytest.raises(ValueError, match="two or more"):
        ESTIMATORS[name](torch.ones(4, 1), torch.arange(4), Advantage())


@given(groups)
def test_rloo_subtracts_the_mean_of_the_other_responses(rewards):
    expected = [reward - (sum(group) - reward) / (len(group) - 1) for group in rewards for reward in group]
    assert estimate("rloo", rewards).tolist() == pytest.approx(expected, abs=1e-9)


@given(groups, st.data())
def test_reinforce_plus_plus_normalises_over_the_tokens_of_the_batch(rewards, data):
    flat = [reward for group in rewards for reward in group]
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=len(flat), max_size=len(flat)))
    tokens = [reward for reward, length in zip(flat, lengths, strict=True) for _ in range(length)]
    mean = sum(tokens) / len(tokens)
    deviation = math.sqrt(sum((t - mean) ** 2 for t in tokens) / (len(tokens) - 1))
    expected = [(t - mean) / (deviation + 1e-6) for t in tokens]
    assert estimate("reinforce++", rewards, lengths).tolist() == pytest.approx(expected, abs=1e-7)


def test_reinforce_plus_plus_baseline_subtracts_the_group_mean_first():
    rewards = [[1.0, 0.0], [0.0, 0.0]]
    deviation = math.sqrt(0.5 / 3)
    expected = [0.5 / (deviation + 1e-6), -0.5 / (deviation + 1e-6), 0, 0]
    assert estimate("reinforce++-baseline", rewards).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(ESTIMATORS.keys() - {"own"}))  # test_own_code.py has that
def test_every_token_of_a_response_has_its_responses_advantage(name):
    found = estimate(name, [[1.0, 0.0, 0.5]], lengths=[3, 0, 2])
    assert len(found) == 5
    assert found[:3].unique().numel() == 1
    assert found[3:].unique().numel() == 1


def test_grpo_keeps_single_precision():
    assert grpo(torch.rand(2, 4), torch.arange(8), Advantage()).dtype == torch.float32
