"""What a row of the metrics says of the rollout that is trained on, and what ends a run that has gone wrong."""

from collections.abc import Mapping

import torch

from entropy_mechanism.rl import covariance
from entropy_mechanism.rl.batch import Rollout, Sequences, sequence_means
from entropy_mechanism.rl.errors import DivergenceError, ParityError
from entropy_mechanism.rl.logprobs import TokenStatistics
from entropy_mechanism.rl.objectives import kl_estimate

PARITY_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Allowed |log-probability difference| in nats between rollout engine and trainer: at most in float32, on average
in bfloat16, where single tokens differ by half a nat."""


def entropy_metrics(when: str, statistics: TokenStatistics, sequences: Sequences) -> dict[str, float]:
    """Eq. 5: tokens averaged per response, then responses (sequence_mean); and over all tokens (token_mean)."""
    entropy = statistics.entropy_N.double()
    per_sequence = sequence_means(entropy, sequences.sequence_N, len(sequences))
    return {
        f"entropy/sequence_mean/{when}": float(per_sequence.nanmean()),
        f"entropy/token_mean/{when}": float(entropy.mean()),
    }


def describe(rollout: Rollout, statistics: TokenStatistics, advantage_N: torch.Tensor) -> dict[str, float]:
    """Entropy after the filter and covariances of the batch that is trained on, before its first update."""
    sequences = rollout.sequences
    logprob_PG, advantage_PG = (
        covariance.response_means(values, sequences.sequence_N, *rollout.rewards_PG.shape)
        for values in (statistics.logprob_N, advantage_N)
    )
    response = covariance.response_covariance(logprob_PG, advantage_PG)
    right_P = (rollout.rewards_PG > 0.5).sum(1)
    return (
        entropy_metrics("after_filter", statistics, sequences)
        | covariance.token_metrics(covariance.token_covariance(statistics.logprob_N, advantage_N))
        | covariance.response_metrics(response, right_P, rollout.group_size)
    )


def check_parity(rollout: Rollout, statistics: TokenStatistics, dtype: str, step: int) -> dict[str, float]:
    """How far the policy that sampled (the engine's) is from the trainer's, over the N sampled tokens.

    With log w = trainer - engine log-probability: k1 = mean(-log w) and k3 = mean(w - 1 - log w), estimates of
    KL(engine || trainer) in nats; the largest |log w|; the effective sample size (sum w)^2 / (N sum w^2) of the
    importance weights, a share of N.

    Raises `ParityError` when the engine sampled from another policy than the trainer computes in `dtype`.
    """
    log_weight_N = statistics.logprob_N.double() - rollout.engine_logprob_N.double()
    if not len(log_weight_N):
        return {}
    difference_N, weight_N = log_weight_N.abs(), log_weight_N.exp()
    difference = difference_N.max().item() if dtype == "float32" else difference_N.mean().item()
    if not difference <= PARITY_TOLERANCE[dtype]:
        raise ParityError(
            f"step {step}: log-probabilities of rollout engine and trainer differ by "
            f"{'up to ' if dtype == 'float32' else ''}{difference:.2e} nats (allowed in {dtype}: "
            f"{PARITY_TOLERANCE[dtype]:.0e}); the engine does not hold the trainer's weights"
        )
    return {
        "mismatch/k1": float(kl_estimate(log_weight_N, "k1").mean()),
        "mismatch/k3": float(kl_estimate(log_weight_N, "k3").mean()),
        "mismatch/max": float(difference_N.max()),
        "mismatch/effective_sample_size": float(weight_N.mean().square() / weight_N.square().mean()),
    }


def skipped_updates(row: Mapping[str, float | None]) -> int:
    """Updates of a step that were skipped, the policy's and the reward model's."""
    names = ("policy/skipped_updates", "reward_model/skipped_updates")
    return sum(int(row.get(name) or 0) for name in names)


def check_finite(skipped: int, allowed: int, step: int) -> None:
    """Raise `DivergenceError` when the run has skipped more updates than it may."""
    if skipped > allowed:
        raise DivergenceError(
            f"step {step}: {skipped} updates had a loss or gradient that was not finite "
            f"(allowed: {allowed}, training.max_skipped_updates); a lower learning rate or a tighter clip may help"
        )
