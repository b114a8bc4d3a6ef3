"""Which tokens Clip-Cov detaches and KL-Cov penalises. Selections are boolean masks over the N tokens given."""

import torch

from entropy_mechanism.config import ClipCov, KlCov


def budget(tokens: int, fraction: float, min_tokens: int) -> int:
    """Tokens to select: floor(fraction × tokens), at least `min_tokens`, never more than there are."""
    # The nudge keeps 0.07 × 100 = 7.000000000000001 and 0.29 × 100 = 28.999999999999996 at 7 and 29.
    return min(tokens, max(min_tokens, int(fraction * tokens + 1e-9)))


def clip_cov(
    covariance_N: torch.Tensor, clipped_N: torch.Tensor, settings: ClipCov, generator: torch.Generator
) -> torch.Tensor:
    """Eq. 11: tokens drawn uniformly from those whose covariance lies in the band.

    Tokens whose ratio the PPO clip already cuts give no gradient; with `exclude_clipped` they are not drawn.
    Fewer than the budget are selected when the band holds fewer. The draw uses `generator` alone; `draw: top`
    takes the highest covariances of the band instead, of equal ones the first.
    """
    low, high = settings.covariance_low, settings.covariance_high
    if settings.band == "closed":
        inside = (covariance_N >= low) & (covariance_N <= high)
    else:
        inside = (covariance_N > low) & (covariance_N < high)
    if settings.exclude_clipped:
        inside = inside & ~clipped_N
    candidates = inside.nonzero().squeeze(-1).cpu()
    count = budget(len(covariance_N), settings.share, settings.min_tokens)
    if settings.draw == "uniform":
        order = torch.randperm(len(candidates), generator=generator)
    else:
        order = covariance_N.cpu()[candidates].argsort(descending=True, stable=True)
    return _mask(covariance_N, candidates[order[:count]])


def kl_cov(covariance_N: torch.Tensor, settings: KlCov) -> torch.Tensor:
    """Eq. 13: tokens of the highest covariance; of equal ones the first.

    Only positive covariances count, so a batch of equal advantages (all zero) selects nothing.
    """
    count = budget(len(covariance_N), settings.share, settings.min_tokens)
    chosen = covariance_N.argsort(descending=True, stable=True)[:count]
    return _mask(covariance_N, chosen) & (covariance_N > 0)


def _mask(like_N: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(len(like_N), dtype=torch.bool, device=like_N.device)
    mask[chosen.to(like_N.device)] = True
    return mask


def selection_metrics(
    selected_N: torch.Tensor, logprob_N: torch.Tensor, advantage_N: torch.Tensor
) -> dict[str, float]:
    """Number, share and composition of the selected tokens (bool); NaN for the composition of none."""
    chosen = logprob_N.detach()[selected_N]
    return {
        "selection/count": float(selected_N.sum()),
        "selection/fraction": float(selected_N.double().mean()),
        "selection/negative_advantage_share": float((advantage_N[selected_N] < 0).double().mean()),
        "selection/mean_logprob": float(chosen.double().mean()),
    }
