"""A covariance-weighted objective: tokens of high covariance count less, and none is cut off."""

import torch

from entropy_mechanism.rl.objectives import Tokens


def covariance_weighted(tokens: Tokens, covariance: torch.Tensor, scale: float, clip: float = 0.2) -> torch.Tensor:
    """exp(-max(c, 0) / scale) times PPO's clipped surrogate; [N].

    Clip-Cov takes the gradient from a few tokens drawn at random from a band of covariances c. Here the weight
    falls smoothly from 1 at c <= 0 to 1/e at c = `scale`: nothing is drawn, and no token loses its gradient.
    """
    weight = torch.exp(-covariance.clamp(min=0) / scale).to(tokens.advantage)
    ratio = tokens.log_ratio().exp()
    kept = torch.minimum(ratio * tokens.advantage, ratio.clamp(1 - clip, 1 + clip) * tokens.advantage)
    return -weight * kept
