"""The contract between the training loop, the evaluation and whatever generates responses."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn."""

    temperature: float
    """0 is greedy."""
    max_tokens: int
    """Response tokens at most."""
    stop_ids: tuple[int, ...]
    """Token ids that end a response; the one that ended it is its last token."""


@dataclass(frozen=True)
class Completion:
    """One response."""

    token_ids: list[int]
    logprobs: list[float]
    """log pi of every token at the sampling temperature (at temperature 1 when greedy)."""
    finish_reason: Literal["stop", "length"]


class Engine(Protocol):
    """Generates responses with some copy of the policy's weights."""

    def generate(
        self, prompts: Sequence[list[int]], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        """For every prompt one completion per seed.

        A completion depends on its prompt, its seed, the settings and the weights alone, not on its neighbours
        (up to float rounding between batch shapes).
        """
        ...

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take over the policy's weights, one at a time; an output head tied to the embedding is among them."""
        ...

    def sleep(self) -> None:
        """Give back the memory that only generation needs, until the next `load_weights` or `generate`."""
        ...


class EngineError(OSError):
    """The engine could not start or stopped for a reason of the machine: another attempt may get past it."""


def sample_seed(*parts: int | str) -> int:
    """A 63-bit seed from e.g. (run seed, step, draw, sample): resuming needs no generator state."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
