"""Covariances of a rollout step from the records of its tokens, by the formulas that training logs."""

from dataclasses import dataclass

import pandas as pd
import torch

from entropy_mechanism.rl import covariance

RECORDED = ("group", "sample", "position", "old_logprob", "reward", "advantage")
"""Columns of the token records that are needed here."""
METRICS = (*covariance.token_metrics(torch.zeros(1)), "covariance/response")
"""Names that every step has; `covariance/response_accuracy_{k/G}` come in addition where they occur."""


@dataclass(frozen=True)
class Step:
    """The tokens of one rollout step: P groups of G responses with N tokens."""

    logprob_N: torch.Tensor
    advantage_N: torch.Tensor
    response_N: torch.Tensor
    """Response of every token, counted through all groups."""
    logprob_PG: torch.Tensor
    """Mean log-probability of each response's tokens."""
    advantage_PG: torch.Tensor
    right_P: torch.Tensor
    """Right responses of each group."""

    @property
    def group_size(self) -> int:
        """G."""
        return self.logprob_PG.shape[1]


def read_step(records: pd.DataFrame, groups: int, group_size: int) -> Step:
    """One step whose N tokens `records` hold; all updates of the step together.

    The policy is the one that sampled (`old_logprob`). The step trained on `groups` groups of `group_size`
    responses. A response without tokens has no row and counts as in training: log-probability and advantage 0; it
    has no answer, so it is not right. Raises ValueError for groups or samples beyond these.
    """
    for column, count in (("group", groups), ("sample", group_size)):
        if (highest := records[column].max()) >= count:
            raise ValueError(f"token records hold {column} {highest}; the step has {count}, counted from 0")
    values = {name: torch.from_numpy(records[name].to_numpy(copy=True)) for name in RECORDED}
    logprob_N, advantage_N = values["old_logprob"], values["advantage"]
    response_N = values["group"].long() * group_size + values["sample"].long()
    first_N = values["position"] == 0
    rewards_B = torch.zeros(groups * group_size).index_put_((response_N[first_N],), values["reward"][first_N])
    return Step(
        logprob_N,
        advantage_N,
        response_N,
        covariance.response_means(logprob_N, response_N, groups, group_size),
        covariance.response_means(advantage_N, response_N, groups, group_size),
        (rewards_B.view(groups, group_size) > 0.5).sum(1),
    )


def step_covariances(step: Step) -> dict[str, float]:
    """The `covariance/…` values of one step."""
    response_P = covariance.response_covariance(step.logprob_PG, step.advantage_PG)
    return covariance.token_metrics(
        covariance.token_covariance(step.logprob_N, step.advantage_N)
    ) | covariance.response_metrics(response_P, step.right_P, step.group_size)
