"""Linear layers whose weights lie in the order in which oneDNN multiplies, for sampling on a CPU.

Weights do not change within a rollout, and few rows meet all of them at every token, so that reading them is what
takes the time. Row by row, as a layer keeps them, they are read more slowly.
"""

import contextlib
from collections.abc import Iterator
from functools import partial

import torch

LEAST = 100_000
"""Weights of a layer. In smaller ones the call costs more than the order wins: see benchmarks/tried.py."""


@contextlib.contextmanager
def prepacked(model: torch.nn.Module) -> Iterator[None]:
    """Let `model` multiply with ordered copies of its large float32 weights on the CPU, without gradient.

    They are copied when the block begins, so weights must not change in it. Results differ by rounding from those
    outside.
    """
    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear and _pays(layer)]
    ordered = [torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach()) for layer in layers]
    try:
        for layer, weight in zip(layers, ordered, strict=True):
            vars(layer)["forward"] = partial(_product, weight, layer.bias)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _pays(layer: torch.nn.Linear) -> bool:
    """Whether oneDNN can compute the layer's product in float32, and it is large enough."""
    weight = layer.weight
    return (
        "forward" not in vars(layer)  # somebody else's
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.numel() >= LEAST
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    )


def _product(ordered: torch.Tensor, bias: torch.Tensor | None, inputs: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(inputs, ordered, bias, "none", [], "")
