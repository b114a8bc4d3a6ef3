"""Losses against arithmetic written out by hand, and gradients against their closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entropy_mechanism.config import Cispo, ClipCov, Gspo, KlCov, PolicyGradient, PpoClip
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
        torch.arange(len(rows)),
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


@given(st.lists(token, min_size=1, max_size=20), st.floats(1.1, 4))
def test_dual_clip_bounds_the_loss_of_negative_advantages_alone(rows, bound):
    loss, gradient = loss_and_gradient(rows, PpoClip(name="ppo-clip", dual_clip=bound))
    for (logprob, old, advantage, _), value, slope in zip(rows, loss, gradient, strict=True):
        expected, expected_slope = ppo_by_hand(logprob, old, advantage, 0.2, 0.2)
        if advantage < 0 and expected > -bound * advantage:
            expected, expected_slope = -bound * advantage, 0.0
        assert value == pytest.approx(expected)
        assert slope == pytest.approx(expected_slope)


def test_a_missing_bound_does_not_clip_and_a_clamped_ratio_does_not_overflow():
    far = [(-1.0, -61.0, 1.0, False), (-61.0, -1.0, -1.0, False)]
    free = PpoClip(name="ppo-clip", clip_low=None, clip_high=None)
    assert loss_and_gradient(far, free)[0] == pytest.approx([-math.exp(60), math.exp(-60)])
    clamped = free.model_copy(update={"log_ratio_clamp": 20.0})
    assert loss_and_gradient(far, clamped)[0] == pytest.approx([-math.exp(20), math.exp(-20)])


@given(st.lists(token, min_size=1, max_size=20))
def test_cispo_keeps_the_gradient_of_clipped_tokens_with_a_bounded_weight(rows):
    _, gradient = loss_and_gradient(rows, Cispo(name="cispo", clip_high=0.28))
    expected = [-min(math.exp(logprob - old), 1.28) * advantage for logprob, old, advantage, _ in rows]
    assert gradient == pytest.approx(expected)


def test_gspo_uses_one_ratio_for_all_tokens_of_a_response():
    logprob = torch.tensor([-1.0, -2.0, -3.0, -0.5], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([-1.3, -1.9, -3.0, -0.2], dtype=torch.float64)
    advantage = torch.tensor([1.0, 1.0, 1.0, -2.0], dtype=torch.float64)
    sequence = torch.tensor([0, 0, 0, 1])
    tokens = Tokens(logprob, old, advantage, torch.zeros(4, dtype=torch.bool), sequence)
    loss = objectives.gspo(tokens, Gspo(name="gspo", clip_low=0.4, clip_high=0.4))
    ratios = [math.exp((0.3 - 0.1 + 0.0) / 3)] * 3 + [math.exp(-0.3)]
    assert loss.tolist() == pytest.approx([-r * a for r, a in zip(ratios, advantage.tolist(), strict=True)])
    loss.sum().backward()
    assert logprob.grad.tolist() == pytest.approx(loss.tolist())  # d loss / d log pi of each token is its loss
    below, above = objectives.clipped(tokens, Gspo(name="gspo", clip_low=0.05, clip_high=0.06))
    assert below.tolist() == [False, False, False, True]
    assert above.tolist() == [True, True, True, False]


@pytest.mark.parametrize("penalty", ["k1", "k2", "k3"])
def test_kl_cov_penalties_are_the_estimators_of_kl_from_old_to_new(penalty):
    rows = [(-1.2, -1.0, 0.0, True), (-0.5, -1.0, 0.0, True), (-1.0, -1.0, 0.0, True)]
    loss, gradient = loss_and_gradient(rows, KlCov(name="kl-cov", penalty=penalty))
    for (logprob, old, *_), value, slope in zip(rows, loss, gradient, strict=True):
        x = logprob - old
        assert value == pytest.approx({"k1": -x, "k2": x * x / 2, "k3": math.exp(x) - 1 - x}[penalty])
        assert slope == pytest.approx({"k1": -1, "k2": x, "k3": math.exp(x) - 1}[penalty])


def test_kl_estimators_agree_on_average_with_the_exact_divergence():
    torch.manual_seed(0)
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    q = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
    exact = (p * (p / q).log()).sum().item()
    log_ratio = (q / p).log()
    assert (p * objectives.kl_estimate(log_ratio, "k1")).sum().item() == pytest.approx(exact)
    assert (p * objectives.kl_estimate(log_ratio, "k3")).sum().item() == pytest.approx(exact)
    assert (p * objectives.kl_estimate(log_ratio, "k2")).sum().item() == pytest.approx(exact, rel=0.1)
    assert (objectives.kl_estimate(log_ratio, "k3") >= 0).all()
    with pytest.raises(ValueError, match="allowed: abs, k1, k2, k3"):
        objectives.kl_estimate(log_ratio, "k4")


def test_reference_kl_is_of_the_policy_to_the_reference():
    logprob = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-1.5], dtype=torch.float64)
    assert objectives.reference_kl(logprob, reference, "k1").item() == pytest.approx(0.5)
    value = objectives.reference_kl(logprob, reference, "k3")
    assert value.item() == pytest.approx(math.exp(-0.5) - 1 + 0.5)
    assert objectives.reference_kl(logprob, reference + 40, "k3").item() == 10


def test_a_selected_token_whose_ratio_overflows_leaves_no_trace():
    rows = [(-1.0, -1500.0, 1.0, True), (-1.0, -1.2, 1.0, False)]
    free = ClipCov(name="clip-cov", clip_low=None, clip_high=None)
    loss, gradient = loss_and_gradient(rows, free)
    assert loss[0] == gradient[0] == 0
    assert math.isfinite(loss[1])
    unselected = [(-1500.0, -1.0, 0.0, False)]
    loss, gradient = loss_and_gradient(unselected, KlCov(name="kl-cov", penalty="k3"))
    assert math.isfinite(loss[0])
    assert math.isfinite(gradient[0])
