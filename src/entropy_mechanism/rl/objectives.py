"""Per-token losses. Pure: the denominator (tokens of the update) is applied by the caller, never here.

Adding one is a settings class in `config.py`, a function here and a line in `OBJECTIVES`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from entropy_mechanism.config import ClipCov, Clipping, KlCov, PolicyGradient


@dataclass(frozen=True)
class Tokens:
    """What a loss sees of the N tokens of an update; all [N]."""

    logprob: torch.Tensor
    """log pi_theta, carries the gradient."""
    old_logprob: torch.Tensor
    """log pi_old of the policy that sampled, as the trainer recomputed it."""
    advantage: torch.Tensor
    selected: torch.Tensor
    """Tokens that Clip-Cov or KL-Cov picked; all False for other objectives."""

    @property
    def ratio(self) -> torch.Tensor:
        """pi_theta / pi_old."""
        return (self.logprob - self.old_logprob).exp()


def clipped(tokens: Tokens, settings: Clipping) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens whose ratio PPO cuts, so that they give no gradient: (below, above), boolean [N]."""
    ratio = tokens.ratio.detach()
    below = (ratio < 1 - settings.clip_low) & (tokens.advantage < 0)
    above = (ratio > 1 + settings.clip_high) & (tokens.advantage > 0)
    return below, above


def policy_gradient(tokens: Tokens, settings: PolicyGradient) -> torch.Tensor:
    """-A log pi: Eq. 2, for strictly on-policy training."""
    return -tokens.advantage * tokens.logprob


def ppo_clip(tokens: Tokens, settings: Clipping) -> torch.Tensor:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A): Eq. 4."""
    bounded = tokens.ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    return -torch.minimum(tokens.ratio * tokens.advantage, bounded * tokens.advantage)


def clip_cov(tokens: Tokens, settings: ClipCov) -> torch.Tensor:
    """Eq. 12: selected tokens give no gradient and add nothing; the others are `ppo_clip`."""
    return ppo_clip(tokens, settings) * ~tokens.selected


def kl_cov(tokens: Tokens, settings: KlCov) -> torch.Tensor:
    """Eq. 14 with the penalty of Listing 1: -rho A, plus beta |log pi - log pi_old| on selected tokens; no clip.

    The penalty has no slope where both policies agree, so it does nothing in the first update of a rollout.
    """
    drift = (tokens.logprob - tokens.old_logprob).abs()
    return -tokens.ratio * tokens.advantage + settings.coefficient * drift * tokens.selected


OBJECTIVES: dict[str, Callable[[Tokens, object], torch.Tensor]] = {
    "policy-gradient": policy_gradient,
    "ppo-clip": ppo_clip,
    "clip-cov": clip_cov,
    "kl-cov": kl_cov,
}
"""Objective name -> function of (tokens, settings) -> loss [N]."""


def policy_metrics(tokens: Tokens, settings: object) -> dict[str, float]:
    """How far the update has moved the policy: clip fractions, k3 estimate of KL(old || new), |log ratio|."""
    log_ratio = (tokens.logprob - tokens.old_logprob).detach().double()
    if isinstance(settings, Clipping):
        below, above = clipped(tokens, settings)
    else:
        below = above = torch.zeros_like(tokens.selected)
    return {
        "policy/clip_fraction_low": float(below.double().mean()),
        "policy/clip_fraction_high": float(above.double().mean()),
        "policy/kl_to_old": float((log_ratio.exp() - 1 - log_ratio).mean()),
        "policy/absolute_log_ratio": float(log_ratio.abs().mean()),
    }
