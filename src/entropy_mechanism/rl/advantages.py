"""From rewards to advantages."""

import torch

from entropy_mechanism.config import Advantage


def grpo(rewards_PG: torch.Tensor, settings: Advantage) -> torch.Tensor:
    """(r - group mean) / (group standard deviation + epsilon), Eq. 3 of arXiv 2505.22617; shape [P, G].

    A group of equal rewards has advantage 0. Raises ValueError for groups of one response.
    """
    if rewards_PG.shape[1] < 2:
        raise ValueError("GRPO compares the responses of a prompt with one another: a group needs two or more")
    centred = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    deviation = rewards_PG.std(dim=1, keepdim=True, correction=1 if settings.std == "sample" else 0)
    return centred / (deviation + settings.epsilon)


ESTIMATORS = {"grpo": grpo}
"""Estimator name -> function of (rewards_PG, settings) -> advantages_PG."""
