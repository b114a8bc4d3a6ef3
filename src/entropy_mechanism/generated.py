"""What is made here and not downloaded: generated problems, and tiny models with the teachers they imitate."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from entropy_mechanism.config_errors import KeyedError
from entropy_mechanism.settings import Count, Fraction, Positive, PromptStyle, Seed, Strict


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"range reversed: found {list(pair)}; allowed: the smaller number first")
    return pair


Operands = Annotated[
    tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]],
    Field(strict=False),
    AfterValidator(_ascending),
]
"""Fewest and most operands of a problem."""
Operations = Annotated[tuple[Count, Count], Field(strict=False), AfterValidator(_ascending)]
"""Fewest and most operations of a problem."""
Range = Annotated[tuple[Fraction, Fraction], Field(strict=False), AfterValidator(_ascending)]
"""Smallest and largest value."""


class ArithmeticSet(Strict):
    """Generated chains of single-digit additions and subtractions modulo 10."""

    kind: Literal["arithmetic"]
    split: Literal["train", "validation", "test"]
    """Which share of all possible problems to draw from; the shares are disjoint."""
    operands: Operands
    """Fewest and most operands of a problem."""
    problems: Count
    """Number of problems."""
    seed: Seed = 0
    """Seed of the draw."""
    prompt: PromptStyle = "plain"
    """How its problems are put to a policy."""

    def overlaps(self, other: Strict) -> bool:
        """Whether the two may hold a problem in common: the same kind and split, and operand ranges that meet."""
        return isinstance(other, ArithmeticSet) and (
            self.split == other.split and _meet(self.operands, other.operands)
        )


class ProgramSet(Strict):
    """Generated programming problems such as `add 3, times 4`, graded by running the program."""

    kind: Literal["programs"]
    split: Literal["train", "validation", "test"]
    """Which share of all possible problems to draw from; the shares are disjoint."""
    operations: Operations
    """Fewest and most operations of a problem."""
    problems: Count
    """Number of problems."""
    seed: Seed = 0
    """Seed of the draw."""
    prompt: PromptStyle = "plain"
    """How its problems are put to a policy."""

    def overlaps(self, other: Strict) -> bool:
        """Whether the two may hold a problem in common: the same kind and split, and ranges that meet."""
        return isinstance(other, ProgramSet) and (
            self.split == other.split and _meet(self.operations, other.operations)
        )


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


class Teacher(Strict):
    """The unreliable teacher a tiny base model imitates."""

    seed: Seed = 0
    """Seed of its table of reliabilities."""
    unreliable_share: Fraction = 0.6
    """Share of the table's entries on which the teacher is mostly wrong."""
    unreliable: Range = (0.1, 0.5)
    """Range of the probability of the right result on those entries."""
    reliable: Range = (0.8, 0.99)
    """Range of the probability of the right result on the others."""
    distractors: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1, max_length=9)] = (
        0.6,
        0.25,
        0.15,
    )
    """How the remaining probability is shared among wrong results."""


class Warmup(Strict):
    """Supervised training of a tiny base model on the teacher's solutions."""

    task: Literal["arithmetic", "programs", "both"] = "arithmetic"
    """What is taught; the kind of the data sets that the model is for. With `both`, half of the problems each."""
    steps: Count
    """Optimiser steps."""
    batch: Count = 128
    """Solutions per step."""
    learning_rate: Positive = 3e-3
    """Peak rate of AdamW; it falls linearly to zero."""
    operands: Operands = (2, 6)
    """Fewest and most operands of the arithmetic shown."""
    operations: Operations = (1, 3)
    """Fewest and most operations of the programs shown."""
    problems: Count = 20_000
    """Number of different problems shown of each task, all of the train split."""
    teacher: Teacher = Teacher()
    """Who writes the solutions."""

    @model_validator(mode="after")
    def _lengths(self) -> "Warmup":
        """A length that plays no part is a mistake."""
        for key, task in (("operands", "arithmetic"), ("operations", "programs")):
            if self.task not in (task, "both") and key in self.model_fields_set:
                raise KeyedError(key, f"found {key} with task {self.task}; allowed: with task {task} or both")
        return self


class TinyModel(Strict):
    """A model small enough to train on a laptop."""

    kind: Literal["tiny"]
    architecture: Literal["qwen2", "llama", "mistral"] = "qwen2"
    """Its network, from transformers. At this size they differ in Qwen2's biases of queries, keys and values."""
    layers: Count
    """Transformer blocks."""
    width: Count
    """Hidden size."""
    heads: Count
    """Attention heads; width / heads is the head size."""
    kv_heads: Count
    """Key-value heads."""
    tied: bool = False
    """Whether the output head shares the embedding's weights."""
    init_std: Positive = 0.08
    """Standard deviation of the initial weights."""
    seed: Seed = 0
    """Seed of initialisation and warm-up."""
    warmup: Warmup
    """How the base model is made."""
    instruct: Warmup | None = None
    """A second warm-up, on another teacher: what makes an instruct model of a base model."""

    @model_validator(mode="after")
    def _one_language(self) -> "TinyModel":
        if self.instruct and self.instruct.task != self.warmup.task:
            raise KeyedError(
                "instruct.task",
                f"found {self.instruct.task}; allowed: {self.warmup.task}, the task of `warmup`, whose words the "
                "tokenizer has",
            )
        return self

    @model_validator(mode="after")
    def _heads(self) -> "TinyModel":
        if self.width % (2 * self.heads):
            raise KeyedError(
                "heads",
                f"width ({self.width}) must be a multiple of twice the heads ({self.heads}): rotary positions "
                "need an even head size",
            )
        if self.heads % self.kv_heads:
            raise KeyedError("kv_heads", f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        return self
