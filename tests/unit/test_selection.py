import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from entropy_mechanism.config import ClipCov, KlCov
from entropy_mechanism.rl import selection
from entropy_mechanism.rl.update import select


def clip_settings(**changes):
    return ClipCov(**{"name": "clip-cov", "fraction": 0.1, "covariance_low": 1, "covariance_high": 5} | changes)


def draw(covariance, settings, seed=0, clipped=None):
    clipped = torch.zeros(len(covariance), dtype=torch.bool) if clipped is None else clipped
    return selection.clip_cov(covariance, clipped, settings, torch.Generator().manual_seed(seed))


@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(0, 3))
def test_budget_is_the_floor_with_a_least_and_never_exceeds_the_tokens(tokens, fraction, least):
    count = selection.budget(tokens, fraction, least)
    assert 0 <= count <= tokens
    assert count >= min(least, tokens)
    if least == 0:
        assert count <= fraction * tokens + 1e-6
        assert count > fraction * tokens - 1 - 1e-6


@pytest.mark.parametrize(("fraction", "tokens", "expected"), [(0.29, 100, 29), (0.07, 100, 7), (2e-4, 4999, 0)])
def test_budget_is_not_off_by_a_rounding_error(fraction, tokens, expected):
    assert selection.budget(tokens, fraction, 0) == expected


def test_a_fraction_below_one_token_selects_nothing_unless_a_least_is_asked_for():
    covariance = torch.linspace(0.1, 4, 100)
    assert not selection.kl_cov(covariance, KlCov(name="kl-cov", fraction=2e-4)).any()
    assert selection.kl_cov(covariance, KlCov(name="kl-cov", fraction=2e-4, min_tokens=1)).sum() == 1


def test_kl_cov_selects_the_highest_covariances():
    covariance = torch.tensor([0.5, 3.0, -9.0, 2.0, 1.0])
    mask = selection.kl_cov(covariance, KlCov(name="kl-cov", fraction=0.4))
    assert mask.tolist() == [False, True, False, True, False]


def test_kl_cov_takes_the_first_of_equal_covariances():
    mask = selection.kl_cov(torch.ones(10), KlCov(name="kl-cov", fraction=0.3))
    assert mask.tolist() == [True] * 3 + [False] * 7


def test_kl_cov_selects_nothing_when_all_advantages_are_equal():
    assert not selection.kl_cov(torch.zeros(100), KlCov(name="kl-cov", fraction=0.5, min_tokens=1)).any()


@example(0.3, [-float(n) for n in range(12)], "equal advantages")
@example(0.3, [-float(n) for n in range(12)], "equal log-probabilities")
@given(
    st.floats(-3, 3, width=32),
    st.lists(st.floats(-20, 0, width=32), min_size=1, max_size=60),
    st.sampled_from(["equal advantages", "equal log-probabilities"]),
)
def test_what_does_not_vary_covaries_with_nothing_to_the_bit(constant, varying, equal):
    """A rounding error of the mean would be a positive covariance of the highest tokens."""
    flat, values = torch.full((len(varying),), constant), torch.tensor(varying)
    pair = (values, flat) if equal == "equal advantages" else (flat, values)
    for settings in (
        KlCov(name="kl-cov", fraction=0.5, min_tokens=1),
        clip_settings(fraction=0.5, covariance_low=1e-30),
    ):
        generator = torch.Generator().manual_seed(0)
        assert not select(pair[0], pair[0], pair[1], settings, generator).any()


def test_clip_cov_draws_only_from_the_closed_band():
    covariance = torch.tensor([0.99, 1.0, 3.0, 5.0, 5.01] * 20)
    mask = draw(covariance, clip_settings(fraction=1.0))
    assert torch.equal(mask, (covariance >= 1) & (covariance <= 5))


def test_clip_cov_draws_exactly_its_budget_and_each_candidate_equally_often():
    covariance = torch.cat([torch.full((20,), 2.0), torch.zeros(80)])
    counts = torch.zeros(100)
    for seed in range(2000):
        mask = draw(covariance, clip_settings(fraction=0.05), seed)
        assert mask.sum() == 5
        counts += mask
    assert counts[20:].sum() == 0
    assert counts[:20].min() > 400  # expected 500, standard deviation about 19
    assert counts[:20].max() < 600


def test_clip_cov_leaves_out_tokens_that_the_ratio_clip_already_cuts():
    clipped = torch.tensor([True, False, False])
    assert draw(torch.full((3,), 2.0), clip_settings(fraction=1.0), clipped=clipped).tolist() == [
        False,
        True,
        True,
    ]


@given(st.lists(st.tuples(st.floats(-4, 0), st.floats(-4, 0), st.floats(-3, 3)), min_size=2, max_size=30))
def test_no_token_that_the_ratio_clip_cuts_is_selected_in_an_update(rows):
    logprob, old, advantage = torch.tensor(rows).unbind(1)
    settings = clip_settings(fraction=1.0, covariance_low=-99, covariance_high=99, clip_low=0.2, clip_high=0.3)
    ratio = (logprob - old).exp()
    cut = ((advantage > 0) & (ratio > 1.3)) | ((advantage < 0) & (ratio < 0.8))
    assert torch.equal(select(logprob, old, advantage, settings, torch.Generator()), ~cut)


def test_clip_cov_depends_on_its_own_generator_alone():
    covariance = torch.full((1000,), 2.0)
    torch.manual_seed(1)
    first = draw(covariance, clip_settings(), seed=7)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = draw(covariance, clip_settings(), seed=7)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, draw(covariance, clip_settings(), seed=8))


def test_composition_describes_the_selected_tokens():
    selected = torch.tensor([True, True, False, False])
    metrics = selection.selection_metrics(
        selected, torch.tensor([-4.0, -2.0, 0.0, 0.0]), torch.tensor([-1.0, 1.0, 1.0, 1.0])
    )
    assert metrics == {
        "selection/count": 2,
        "selection/fraction": 0.5,
        "selection/negative_advantage_share": 0.5,
        "selection/mean_logprob": -3.0,
    }
