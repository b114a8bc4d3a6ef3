"""Prompts of different lengths as one batch that responses can be appended to."""

from collections.abc import Sequence

import torch


def left_padded(
    prompts: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and positions of P prompts, each int64 [P, L], padded on the left.

    So every prompt ends in the last column, and what follows it stands right behind it.
    """
    length = max(map(len, prompts))
    ids_PL = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in prompts])
    padding_P = torch.tensor([length - len(prompt) for prompt in prompts])
    position_PL = torch.arange(length) - padding_P[:, None]
    return ids_PL.to(device), (position_PL >= 0).long().to(device), position_PL.clamp(min=0).to(device)
