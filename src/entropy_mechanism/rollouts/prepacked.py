"""Linear layers whose weights lie in the order in which oneDNN multiplies, for sampling on a CPU.

Weights do not change within a rollout, and few rows meet all of them at every token, so that reading them is what
takes the time. Row by row, as a layer keeps them, they are read more slowly.
"""

import contextlib
from collections.abc import Iterator
from functools import partial

import torch

LEAST = 100_000
"""Weights of a layer. In smaller ones the call costs more than the order wins: docs/performance.md."""


@contextlib.contextmanager
def prepacked(model: torch.nn.Module) -> Iterator[None]:
    """Let `model` multiply with ordered copies of its large float32 weights on the CPU, without gradient.

    They are copied when the block begins, so weights must not change in it. Results differ by rounding from those
    outside.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear) and _pays(layer.weight)]
    for layer in layers:
        ordered = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
        vars(layer)["forward"] = partial(_product, ordered, layer.bias)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def _pays(weight: torch.Tensor) -> bool:
    """Whether a product with `weight` is computed by oneDNN in float32 and large enough."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.numel() >= LEAST
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    )


def _product(ordered: torch.Tensor, bias: torch.Tensor | None, inputs: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(inputs, ordered, bias, "none", [], "")
