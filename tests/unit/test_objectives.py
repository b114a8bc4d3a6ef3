"""Losses against arithmetic written out by hand, and gradients against their closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entropy_mechanism.config import ClipCov, KlCov, PolicyGradient, PpoClip
from entropy_mechanism.rl import objectives
from entropy_mechanism.rl.objectives import Tokens

PPO = PpoClip(name="ppo-clip")
token = st.tuples(st.floats(-5, -0.01), st.floats(-5, -0.01), st.floats(-3, 3), st.booleans())


def tokens_of(rows):
    logprob, old, advantage, selected = zip(*rows, strict=True)
    return Tokens(
        torch.tensor(logprob, dtype=torch.float64, requires_grad=True),
        torch.tensor(old, dtype=torch.float64),
        torch.tensor(advantage, dtype=torch.float64),
        torch.tensor(selected),
    )


def loss_and_gradient(rows, settings):
    tokens = tokens_of(rows)
    loss = objectives.OBJECTIVES[settings.name](tokens, settings)
    loss.sum().backward()
    return loss.tolist(), tokens.logprob.grad.tolist()


def ppo_by_hand(logprob, old, advantage, low, high):
    """Loss and slope of one token, case by case."""
    ratio = math.exp(logprob - old)
    cut = (advantage > 0 and ratio > 1 + high) or (advantage < 0 and ratio < 1 - low)
    bound = 1 + high if advantage > 0 else 1 - low
    return (-advantage * bound, 0.0) if cut else (-advantage * ratio, -advantage * ratio)


@given(st.lists(token, min_size=1, max_size=20))
def test_ppo_clip_and_its_gradient(rows):
    for settings in (PPO, PpoClip(name="ppo-clip", clip_low=0.2, clip_high=0.28)):
        expected = [ppo_by_hand(*row[:3], settings.clip_low, settings.clip_high) for row in rows]
        loss, gradient = loss_and_gradient(rows, settings)
        assert loss == pytest.approx([value for value, _ in expected])
        assert gradient == pytest.approx([slope for _, slope in expected])


@given(st.lists(token, min_size=1, max_size=20))
def test_clip_cov_gives_selected_tokens_no_loss_and_no_gradient(rows):
    loss, gradient = loss_and_gradient(rows, ClipCov(name="clip-cov"))
    expected = [(0.0, 0.0) if row[3] else ppo_by_hand(*row[:3], 1, 1) for row in rows]
    assert loss == pytest.approx([value for value, _ in expected])
    assert gradient == pytest.approx([slope for _, slope in expected])


@given(st.lists(token, min_size=1, max_size=20), st.floats(0, 2))
def test_kl_cov_penalises_the_drift_of_selected_tokens_alone(rows, coefficient):
    loss, gradient = loss_and_gradient(rows, KlCov(name="kl-cov", coefficient=coefficient))
    for (logprob, old, advantage, selected), value, slope in zip(rows, loss, gradient, strict=True):
        drift = logprob - old
        sign = (drift > 0) - (drift < 0)
        penalty = coefficient * selected
        assert value == pytest.approx(-advantage * math.exp(drift) + penalty * abs(drift))
        assert slope == pytest.approx(-advantage * math.exp(drift) + penalty * sign)


@given(st.lists(token, min_size=1, max_size=20))
def test_kl_cov_is_the_plain_policy_gradient_where_both_policies_agree(rows):
    same = [(logprob, logprob, advantage, selected) for logprob, _, advantage, selected in rows]
    _, kl_cov = loss_and_gradient(same, KlCov(name="kl-cov", coefficient=1))
    _, plain = loss_and_gradient(same, PolicyGradient(name="policy-gradient"))
    assert kl_cov == plain


def test_policy_gradient_weighs_log_probabilities_by_advantage():
    loss, gradient = loss_and_gradient([(-2.0, -1.0, 0.5, False)], PolicyGradient(name="policy-gradient"))
    assert loss == [1.0]
    assert gradient == [-0.5]


def test_clip_fractions_count_the_tokens_without_gradient():
    rows = [
        (math.log(1.3) - 1, -1.0, 1.0, False),  # above, counts
        (math.log(1.3) - 1, -1.0, -1.0, False),  # above, but the advantage is negative
        (math.log(0.7) - 1, -1.0, -1.0, False),  # below, counts
        (-1.0, -1.0, 1.0, False),
    ]
    metrics = objectives.policy_metrics(tokens_of(rows), PPO)
    assert metrics["policy/clip_fraction_high"] == metrics["policy/clip_fraction_low"] == 0.25
    ratios = [1.3, 1.3, 0.7, 1.0]
    assert metrics["policy/kl_to_old"] == pytest.approx(sum(r - 1 - math.log(r) for r in ratios) / 4)
    assert metrics["policy/absolute_log_ratio"] == pytest.approx(sum(abs(math.log(r)) for r in ratios) / 4)
