"""From rewards to an advantage for every response token; docs/extending.md adds estimators of one's own."""

from collections.abc import Callable

import torch

from entropy_mechanism import own_code
from entropy_mechanism.config import Advantage


def grpo(rewards_PG: torch.Tensor, sequence_N: torch.Tensor, settings: Advantage) -> torch.Tensor:
    """(r - group mean) / (group standard deviation + epsilon), Eq. 3 of arXiv 2505.22617; shape [N].

    A group of equal rewards has advantage 0; `std: none` leaves the division out (Dr. GRPO, arXiv 2503.20783).
    Raises ValueError for groups of one response.
    """
    centred = _centred(rewards_PG, "GRPO")
    if settings.std != "none":
        centred = centred / (
            rewards_PG.std(dim=1, keepdim=True, correction=_correction(settings)) + settings.epsilon
        )
    return centred.flatten()[sequence_N]


def rloo(rewards_PG: torch.Tensor, sequence_N: torch.Tensor, settings: Advantage) -> torch.Tensor:
    """r minus the mean reward of the group's other responses (arXiv 2402.14740); shape [N].

    Equals G / (G - 1) times r minus the group mean. Raises ValueError for groups of one response.
    """
    group = rewards_PG.shape[1]
    centred = _centred(rewards_PG, "RLOO")
    return (centred * (group / (group - 1))).flatten()[sequence_N]


def reinforce_plus_plus(rewards_PG: torch.Tensor, sequence_N: torch.Tensor, settings: Advantage) -> torch.Tensor:
    """REINFORCE++ (arXiv 2501.03262): r normalised over all tokens of the rollout; shape [N].

    The return of every token is the response's reward, since the discount is 1 and there is no KL in the
    reward; mean and standard deviation are over tokens, so long responses weigh more.
    """
    return _normalised(rewards_PG.flatten()[sequence_N], settings)


def reinforce_plus_plus_baseline(
    rewards_PG: torch.Tensor, sequence_N: torch.Tensor, settings: Advantage
) -> torch.Tensor:
    """REINFORCE++-baseline: r minus the group mean, then normalised over all tokens of the rollout; shape [N]."""
    return _normalised(_centred(rewards_PG, "REINFORCE++-baseline").flatten()[sequence_N], settings)


def own(rewards_PG: torch.Tensor, sequence_N: torch.Tensor, settings: Advantage) -> torch.Tensor:
    """What the experiment's own function gives, without gradient; shape [N].

    Raises ValueError unless that is a finite advantage for every token.
    """
    function = own_code.function(settings.code or "", settings.sha256 or "")
    advantage = function(rewards_PG, sequence_N, **(settings.options or {}))
    if not isinstance(advantage, torch.Tensor) or advantage.shape != sequence_N.shape:
        found = (
            f"shape {list(advantage.shape)}" if isinstance(advantage, torch.Tensor) else type(advantage).__name__
        )
        raise ValueError(
            f"{settings.code} returned {found}; an estimator returns the advantage of each of the "
            f"{len(sequence_N)} tokens, such as values_P.repeat_interleave(G)[sequence_N]"
        )
    if not advantage.isfinite().all():
        raise ValueError(f"{settings.code} returned an advantage that is not finite")
    return advantage.detach().to(rewards_PG)


def _centred(rewards_PG: torch.Tensor, name: str) -> torch.Tensor:
    if rewards_PG.shape[1] < 2:
        raise ValueError(f"{name} compares the responses of a prompt with one another: a group needs two or more")
    return rewards_PG - rewards_PG.mean(dim=1, keepdim=True)


def _normalised(values_N: torch.Tensor, settings: Advantage) -> torch.Tensor:
    centred = values_N - values_N.mean()
    if settings.std == "none" or len(values_N) < 2:
        return centred
    return centred / (values_N.std(correction=_correction(settings)) + settings.epsilon)


def _correction(settings: Advantage) -> int:
    return 1 if settings.std == "sample" else 0


ESTIMATORS: dict[str, Callable[[torch.Tensor, torch.Tensor, Advantage], torch.Tensor]] = {
    "grpo": grpo,
    "rloo": rloo,
    "reinforce++": reinforce_plus_plus,
    "reinforce++-baseline": reinforce_plus_plus_baseline,
    "own": own,
}
"""Estimator name -> function of (rewards [P, G], response of each token [N], settings) -> advantages [N]."""
