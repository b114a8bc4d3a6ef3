"""Per-token losses [N] of N response tokens. Pure: the weights of the mean are applied by the caller, never here.

Adding one is a function in a file of one's own that the experiment names (docs/extending.md); one of the project's
is a settings class in `methods.py`, a function here and a line in `OBJECTIVES`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from entropy_mechanism import own_code
from entropy_mechanism.config import Cispo, ClipCov, Clipping, Gspo, KlCov, OwnObjective, PolicyGradient
from entropy_mechanism.rl.batch import sequence_means

REFERENCE_KL_CLAMP = 10.0
"""Bound of the per-token k3 estimate of KL(pi || reference), as in the paper's code."""


@dataclass(frozen=True)
class Tokens:
    """What a loss sees of N response tokens; all [N]. Responses are whole."""

    logprob: torch.Tensor
    """log pi_theta, carries the gradient."""
    old_logprob: torch.Tensor
    """log pi_old of the policy that sampled, as the trainer recomputed it."""
    advantage: torch.Tensor
    selected: torch.Tensor
    """Tokens that Clip-Cov or KL-Cov picked; all False for other objectives."""
    sequence: torch.Tensor
    """Response that each token belongs to, counted from 0."""
    full_kl: torch.Tensor | None = None
    """KL(old || new) over the vocabulary at selected tokens, 0 elsewhere, with gradient: KL-Cov's `full`."""
    covariance: torch.Tensor | None = None
    """Eq. 10 over the tokens of the whole update, float64, no gradient; for own objectives that take it."""

    def log_ratio(self, clamp: float | None = None) -> torch.Tensor:
        """log rho = log pi_theta - log pi_old, within +-`clamp` if given."""
        log_ratio = self.logprob - self.old_logprob
        return log_ratio if clamp is None else log_ratio.clamp(-clamp, clamp)

    def response_log_ratio(self) -> torch.Tensor:
        """Mean log rho of each token's response (GSPO), with the gradient of the token's own log pi."""
        log_ratio = self.log_ratio().detach()
        means = sequence_means(log_ratio, self.sequence, int(self.sequence.max()) + 1 if len(log_ratio) else 0)
        return means[self.sequence] + self.logprob - self.logprob.detach()


def _bounds(settings: Clipping) -> tuple[float, float]:
    low = 0.0 if settings.clip_low is None else 1 - settings.clip_low
    high = float("inf") if settings.clip_high is None else 1 + settings.clip_high
    return low, high


def clipped(tokens: Tokens, settings: Clipping) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens whose ratio PPO cuts, so that they give no gradient: (below, above), boolean [N]."""
    low, high = _bounds(settings)
    log_ratio = tokens.response_log_ratio() if isinstance(settings, Gspo) else tokens.log_ratio()
    ratio = log_ratio.detach().exp()
    return (ratio < low) & (tokens.advantage < 0), (ratio > high) & (tokens.advantage > 0)


def policy_gradient(tokens: Tokens, settings: PolicyGradient) -> torch.Tensor:
    """-A log pi: Eq. 2, for strictly on-policy training."""
    return -tokens.advantage * tokens.logprob


def ppo_clip(tokens: Tokens, settings: Clipping) -> torch.Tensor:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A): Eq. 4; with dual clip at most -c A where A < 0."""
    return _surrogate(tokens.log_ratio(settings.log_ratio_clamp).exp(), tokens.advantage, settings)


def gspo(tokens: Tokens, settings: Gspo) -> torch.Tensor:
    """`ppo_clip` with the geometric mean of the response's ratios, one for all its tokens."""
    return _surrogate(tokens.response_log_ratio().exp(), tokens.advantage, settings)


def cispo(tokens: Tokens, settings: Cispo) -> torch.Tensor:
    """-sg(clip(rho, 1 - low, 1 + high)) A log pi: no token loses its gradient, but its weight is bounded."""
    weight = tokens.log_ratio(settings.log_ratio_clamp).exp().clamp(*_bounds(settings)).detach()
    return -weight * tokens.advantage * tokens.logprob


def clip_cov(tokens: Tokens, settings: ClipCov) -> torch.Tensor:
    """Eq. 12: selected tokens give no gradient and add nothing; the others are `ppo_clip`."""
    # Masked before the exponential: a ratio that overflows would make 0 times infinity of the token.
    logprob = torch.where(tokens.selected, tokens.old_logprob, tokens.logprob)
    return ppo_clip(replace(tokens, logprob=logprob), settings).masked_fill(tokens.selected, 0.0)


def kl_cov(tokens: Tokens, settings: KlCov) -> torch.Tensor:
    """Eq. 14: -rho A (no clip by default), plus beta times the penalty on selected tokens.

    The default penalty |log rho| has no slope where both policies agree, so it does nothing in the first
    update of a rollout; nor do k2, k3 and the full KL, while k1 pulls at full strength in a direction of zero
    mean.
    """
    if settings.penalty == "full":
        assert tokens.full_kl is not None, "penalty `full` needs the divergence at the selected tokens"
        penalty = tokens.full_kl
    else:
        penalty = kl_estimate(torch.where(tokens.selected, tokens.log_ratio(), 0.0), settings.penalty)
    return ppo_clip(tokens, settings) + settings.coefficient * penalty


def takes_covariance(settings: object) -> bool:
    """Whether an objective is a function of one's own that wants `Tokens.covariance`."""
    if not isinstance(settings, OwnObjective):
        return False
    return own_code.COVARIANCE in inspect.signature(own_code.function(settings.code, settings.sha256)).parameters


def own(tokens: Tokens, settings: OwnObjective) -> torch.Tensor:
    """What the experiment's own function gives. Raises ValueError unless that is a loss for every token."""
    given = {own_code.COVARIANCE: tokens.covariance} if takes_covariance(settings) else {}
    loss = own_code.function(settings.code, settings.sha256)(tokens, **given, **settings.options)
    if not isinstance(loss, torch.Tensor) or loss.shape != tokens.logprob.shape:
        found = f"shape {list(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise ValueError(
            f"{settings.code} returned {found}; an objective returns the loss of each of the "
            f"{len(tokens.logprob)} tokens, and the mean is taken elsewhere"
        )
    return loss


def kl_estimate(log_ratio: torch.Tensor, estimator: str) -> torch.Tensor:
    """Estimates per token of KL(p || q), given log_ratio = log q - log p of tokens drawn from p.

    k1 = -log_ratio, k2 = log_ratio^2 / 2, k3 = exp(log_ratio) - 1 - log_ratio (Schulman 2020); abs = |log_ratio|.
    Elementwise, of any shape. Raises ValueError for another estimator.
    """
    match estimator:
        case "abs":
            return log_ratio.abs()
        case "k1":
            return -log_ratio
        case "k2":
            return log_ratio.square() / 2
        case "k3":
            return log_ratio.exp() - 1 - log_ratio
    raise ValueError(f"unknown KL estimator '{estimator}'; allowed: abs, k1, k2, k3")


def reference_kl(logprob: torch.Tensor, reference_logprob: torch.Tensor, estimator: str) -> torch.Tensor:
    """Estimate per token of KL(pi || reference) for L + beta KL (Fig 10), clamped to +-10 where it is k3."""
    estimate = kl_estimate(reference_logprob - logprob, estimator)
    return estimate.clamp(-REFERENCE_KL_CLAMP, REFERENCE_KL_CLAMP) if estimator == "k3" else estimate


def _surrogate(ratio: torch.Tensor, advantage: torch.Tensor, settings: Clipping) -> torch.Tensor:
    if settings.clip_low is None and settings.clip_high is None and settings.dual_clip is None:
        return -ratio * advantage
    loss = -torch.minimum(ratio * advantage, ratio.clamp(*_bounds(settings)) * advantage)
    if settings.dual_clip is None:
        return loss
    return torch.where(advantage < 0, torch.minimum(loss, -settings.dual_clip * advantage), loss)


OBJECTIVES: dict[str, Callable[[Tokens, Any], torch.Tensor]] = {
    "policy-gradient": policy_gradient,
    "ppo-clip": ppo_clip,
    "cispo": cispo,
    "gspo": gspo,
    "clip-cov": clip_cov,
    "kl-cov": kl_cov,
    "own": own,
}
"""Objective name -> function of (tokens, settings) -> loss [N]."""


def policy_metrics(tokens: Tokens, settings: object) -> dict[str, float]:
    """How far the rollout's earlier updates have moved the policy.

    Clip fractions, k3 estimate of KL(old || new), mean |log ratio|; all zero in the first update.
    """
    log_ratio = tokens.log_ratio().detach().double()
    if isinstance(settings, Clipping):
        below, above = clipped(tokens, settings)
    else:
        below = above = torch.zeros_like(tokens.selected)
    return {
        "policy/clip_fraction_low": float(below.double().mean()),
        "policy/clip_fraction_high": float(above.double().mean()),
        "policy/kl_to_old": float(kl_estimate(log_ratio, "k3").mean()),
        "policy/absolute_log_ratio": float(log_ratio.abs().mean()),
    }
