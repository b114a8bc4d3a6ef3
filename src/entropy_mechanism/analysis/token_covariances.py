"""Covariances of a rollout step from the records of its tokens, by the formulas that training logs."""

import pandas as pd
import torch

from entropy_mechanism.rl import covariance

RECORDED = ("group", "sample", "position", "old_logprob", "reward", "advantage")
"""Columns of the token records that are needed here."""
METRICS = (*covariance.token_metrics(torch.zeros(1)), "covariance/response")
"""Names that every step has; `covariance/response_accuracy_{k/G}` come in addition where they occur."""


def step_covariances(records: pd.DataFrame, groups: int, group_size: int) -> dict[str, float]:
    """The `covariance/…` values of one step whose N tokens `records` hold; all updates of the step together.

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
    logprob_PG, advantage_PG = (
        covariance.response_means(tokens, response_N, groups, group_size) for tokens in (logprob_N, advantage_N)
    )
    first_N = values["position"] == 0
    rewards_B = torch.zeros(groups * group_size).index_put_((response_N[first_N],), values["reward"][first_N])
    right_P = (rewards_B.view(groups, group_size) > 0.5).sum(1)
    return covariance.token_metrics(
        covariance.token_covariance(logprob_N, advantage_N)
    ) | covariance.response_metrics(covariance.response_covariance(logprob_PG, advantage_PG), right_P, group_size)
