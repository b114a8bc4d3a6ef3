import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entropy_mechanism.rl import covariance

finite = st.floats(-30, 30, allow_nan=False)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=50))
def test_mean_token_covariance_is_the_sample_covariance(pairs):
    logprob, advantage = np.array(pairs, dtype=np.float32).astype(np.float64).T
    tokens = covariance.token_covariance(torch.tensor(logprob), torch.tensor(advantage))
    expected = np.mean(logprob * advantage) - logprob.mean() * advantage.mean()
    assert tokens.mean().item() == pytest.approx(expected, abs=1e-9)


def test_token_covariance_centres_over_tokens_not_over_groups():
    # Two responses of lengths 3 and 1 whose advantages cancel: over tokens their mean is 0.5, not 0.
    logprob = torch.tensor([-1.0, -2.0, -3.0, -6.0])
    advantage = torch.tensor([1.0, 1.0, 1.0, -1.0])
    assert covariance.token_covariance(logprob, advantage).tolist() == [1.0, 0.5, 0.0, 4.5]


def test_token_covariance_carries_no_gradient():
    logprob = torch.tensor([-1.0, -2.0], requires_grad=True)
    assert not covariance.token_covariance(logprob, torch.tensor([1.0, 0.0])).requires_grad


def test_top_fractions_are_means_of_the_highest_tokens():
    values = torch.arange(10_000, dtype=torch.float64)
    metrics = covariance.token_metrics(values[torch.randperm(10_000)])
    assert metrics["covariance/top_0.0002"] == 9998.5
    assert metrics["covariance/top_0.02"] == 9899.5
    assert metrics["covariance/top_0.5"] == 7499.5
    assert metrics["covariance/mean"] == 4999.5
    assert metrics["covariance/quantile_0.9"] == pytest.approx(8999.1)
    assert metrics["covariance/max"] == 9999


def test_top_fraction_of_a_small_batch_is_its_highest_token():
    assert covariance.token_metrics(torch.tensor([3.0, 1.0, 2.0]))["covariance/top_0.0002"] == 3


def test_positive_share_counts_strictly_positive_tokens():
    metrics = covariance.token_metrics(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
    assert metrics["covariance/positive_share"] == 0.5


def test_response_covariance_is_theorem_1_per_prompt():
    logprob = torch.tensor([[-0.5, -1.0], [-0.2, -0.2]])
    advantage = torch.tensor([[1.0, -1.0], [0.7, -0.7]])
    p, q = math.exp(-0.5), -math.exp(-1.0)
    mean = (p + q) / 2
    expected = ((-0.5 + 0.75) * (p - mean) + (-1.0 + 0.75) * (q - mean)) / 2
    found = covariance.response_covariance(logprob, advantage)
    assert found.tolist() == pytest.approx([expected, 0.0])


def test_response_covariance_is_reported_by_group_accuracy():
    metrics = covariance.response_metrics(torch.tensor([1.0, 3.0, 10.0]), torch.tensor([1, 1, 7]), 8)
    assert metrics == {
        "covariance/response": pytest.approx(14 / 3),
        "covariance/response_accuracy_0.125": 2.0,
        "covariance/response_accuracy_0.875": 10.0,
    }


def test_quantiles_are_those_of_numpy():
    values = torch.randn(1001, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    metrics = covariance.token_metrics(values)
    for quantile in covariance.QUANTILES:
        assert metrics[f"covariance/quantile_{quantile}"] == pytest.approx(np.quantile(values.numpy(), quantile))
