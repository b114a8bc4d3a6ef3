"""The arithmetic floor of a training step: the operations it needs, and how fast the machine multiplies matrices.

Counted are matrix products and attention of what a GRPO step cannot do without: in sampling, in the
log-probabilities before the updates, and in forward and backward passes of the updates every prompt is read once
for all its responses, and every token of a response but its last, which predicts nothing, once. The output head
counts where a token is predicted and scored. All else (norms, softmax, optimiser, Python) takes no operations
here, and padding none.
"""

import time
from dataclasses import dataclass

import torch

from entropy_mechanism.shapes import Shape


@dataclass(frozen=True)
class Step:
    """The size of a GRPO step."""

    prompts: int
    samples: int
    """Responses to a prompt."""
    prompt_tokens: float
    """Of one prompt, on average."""
    response_tokens: float
    """Of one response, on average."""

    @property
    def responses(self) -> int:
        """All of the step."""
        return self.prompts * self.samples

    @property
    def tokens(self) -> float:
        """Of all sequences, prompts included."""
        return self.responses * (self.prompt_tokens + self.response_tokens)


def forward_flops(shape: Shape, first: float, last: float) -> float:
    """Operations of the blocks for the tokens of one sequence from place `first` to `last`, causal attention."""
    tokens, context = last - first, (first + last) / 2
    matrices = shape.layer_parameters - 2 * shape.width  # without the norms
    return shape.layers * tokens * (2 * matrices + 4 * shape.query_width * context)


def step_flops(shape: Shape, step: Step) -> dict[str, float]:
    """Operations of a step by phase."""
    head, first = 2 * shape.head_parameters, step.prompt_tokens
    read = max(0, step.response_tokens - 1)
    response = forward_flops(shape, first, first + read) + step.response_tokens * head
    once = step.prompts * forward_flops(shape, 0, step.prompt_tokens) + step.responses * response
    return {"sample": once, "logprob": once, "update": 3 * once}


def matrix_rate(width: int, device: str = "cpu", dtype: str = "float32", seconds: float = 1.0) -> float:
    """Operations a second of products [4096, width] x [width, 4 width], the best of many; threads as they are."""
    kind = getattr(torch, dtype)
    left = torch.randn(4096, width, device=device, dtype=kind)
    right = torch.randn(width, 4 * width, device=device, dtype=kind)
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        _synchronise(device)
        began = time.perf_counter()
        left @ right
        _synchronise(device)
        best = min(best, time.perf_counter() - began)
    return 2 * 4096 * width * 4 * width / best


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
