"""Covariance of log-probability and advantage: per token (Eq. 10) and per response (Eq. 8-9)."""

import torch

from entropy_mechanism.rl.batch import sequence_means

TOP_FRACTIONS = (0.0002, 0.002, 0.02, 0.2, 0.5)
"""Table 1's fractions of tokens, highest covariance first."""
QUANTILES = (0.5, 0.9, 0.99, 0.999)


def token_covariance(logprob_N: torch.Tensor, advantage_N: torch.Tensor, weighted: bool = False) -> torch.Tensor:
    """(log pi - mean log pi)(A - mean A) per token, means over all N tokens given: Eq. 10 of arXiv 2505.22617.

    `weighted` takes pi A for A, the form of Theorem 1. Detached, float64 [N]: the mean over tokens is the
    sample covariance, and its sign must not be rounding.
    """
    logprob = logprob_N.detach().double()
    advantage = advantage_N.detach().double()
    if weighted:
        advantage = logprob.exp() * advantage
    return (logprob - logprob.mean()) * (advantage - advantage.mean())


def token_metrics(covariance_N: torch.Tensor) -> dict[str, float]:
    """Mean, spread, quantiles and Table 1's means of the top fractions (at least one token each)."""
    ordered = covariance_N.sort(descending=True).values
    metrics = {
        "covariance/mean": ordered.mean(),
        "covariance/std": ordered.std(correction=0),
        "covariance/max": ordered[0],
        "covariance/positive_share": (ordered > 0).double().mean(),
    }
    for fraction in TOP_FRACTIONS:
        count = max(1, round(fraction * len(ordered)))
        metrics[f"covariance/top_{fraction}"] = ordered[:count].mean()
    for quantile in QUANTILES:
        metrics[f"covariance/quantile_{quantile}"] = _quantile(ordered, quantile)
    return {name: float(value) for name, value in metrics.items()}


def _quantile(descending: torch.Tensor, quantile: float) -> torch.Tensor:
    """Quantile by linear interpolation of sorted values; torch's own refuses more than 2^24 of them."""
    place = (1 - quantile) * (len(descending) - 1)
    below = int(place)
    above = min(below + 1, len(descending) - 1)
    return descending[below] + (place - below) * (descending[above] - descending[below])


def response_means(values_N: torch.Tensor, response_N: torch.Tensor, groups: int, size: int) -> torch.Tensor:
    """Mean over the tokens of each response, float64 [P, G]; 0 for a response without tokens."""
    return sequence_means(values_N.double(), response_N, groups * size).nan_to_num().view(groups, size)


def response_covariance(
    mean_logprob_PG: torch.Tensor, advantage_PG: torch.Tensor, weighted: bool = True
) -> torch.Tensor:
    """Covariance over the responses of each prompt of (log pi(y|x), pi(y|x) A(y)), Eq. 8-9; shape [P].

    Without `weighted` of (log pi(y|x), A(y)), the form of Theorem 2.

    log pi(y|x) is the mean over the response's tokens, as the paper normalises it, and pi(y|x) its exponential
    (the product over tokens would underflow). The responses are samples of pi, so the expectation is their
    plain mean (divisor G).
    """
    logprob = mean_logprob_PG.detach().double()
    advantage = advantage_PG.detach().double()
    if weighted:
        advantage = logprob.exp() * advantage
    return ((logprob - logprob.mean(1, keepdim=True)) * (advantage - advantage.mean(1, keepdim=True))).mean(1)


def response_metrics(covariance_P: torch.Tensor, right_P: torch.Tensor, group_size: int) -> dict[str, float]:
    """Mean over prompts, and over the prompts of each group accuracy k/G.

    `right_P` counts the right responses of each prompt. Accuracies without a prompt are left out.
    """
    metrics = {"covariance/response": float(covariance_P.mean())}
    for right in sorted(set(right_P.tolist())):
        chosen = covariance_P[right_P == right]
        metrics[f"covariance/response_accuracy_{right / group_size:g}"] = float(chosen.mean())
    return metrics
