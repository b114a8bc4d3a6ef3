"""What the stages that compute with torch share."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from entropy_mechanism.config import Compute, PromptStyle
from entropy_mechanism.data.problems import from_frame
from entropy_mechanism.data.prompts import chat
from entropy_mechanism.rewards.grading import Grader
from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rl.collect import Grader as CompletionGrader
from entropy_mechanism.rl.collect import Question
from entropy_mechanism.rollouts.engine import Completion
from entropy_mechanism.rollouts.vllm_engine import VllmEngine

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
LARGEST_BLOCK = 2**25
"""Bytes of the largest block that glibc can be told to take from its heap."""


def compute_on_cpu() -> None:
    """One thread: the same bits on any machine of one kind, no waiting on busy cores; and memory that is kept."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let the C library keep what torch frees, where it is glibc; peak memory is as before.

    It would map every block that is larger than all before anew, and the system fill its pages with zeros: a cache
    that grows token by token is made of such blocks (benchmarks/tried.py).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def questions(path: Path, tokenizer: PreTrainedTokenizerBase, style: PromptStyle = "plain") -> list[Question]:
    """The problems of a file as chat prompts; their text never reaches the policy in any other way.

    Raises ValueError when the tokenizer has no chat template.
    """
    problems = from_frame(pd.read_parquet(path), str(path))
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer in {tokenizer.name_or_path} has no chat template, so no {style} prompt can be "
            "made; write one as `chat_template` of the model in the experiment"
        )
    prompts = cast(  # its type allows for texts and for a single chat too
        "list[list[int]]",
        tokenizer.apply_chat_template(
            [chat(style, problem.problem) for problem in problems],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        ),
    )
    return [
        Question(list(ids), problem.answer, problem.tests) for ids, problem in zip(prompts, problems, strict=True)
    ]


def longest_prompt(asked: Sequence[Question]) -> int:
    """Tokens of the longest prompt."""
    return max(len(question.prompt_ids) for question in asked)


def vllm_engine(
    compute: Compute, weights: Path, vocabulary: int, longest: int, dtype: str, ranks: int = 1
) -> VllmEngine:
    """The engine of `compute: {engine: vllm}` on each of the `ranks`; `longest` bounds prompt and response."""
    return VllmEngine(
        weights,
        vocabulary,
        longest,
        dtype=dtype,
        device=compute.device or "cpu",
        memory=compute.vllm_memory,
        tensor_parallel=compute.tensor_parallel,
        ranks=ranks,
    )


def stop_ids(tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] | None) -> tuple[int, ...]:
    """Ids of the tokens that end a response; without `stop` the tokenizer's end-of-sequence token.

    Raises ValueError naming every text in `stop` that is not one token of the vocabulary.
    """
    if stop is None:
        return (tokenizer.eos_token_id,)
    vocabulary = tokenizer.get_vocab()
    unknown = [token for token in stop if token not in vocabulary]
    if unknown:
        special = ", ".join(dict.fromkeys(map(str, tokenizer.all_special_tokens)))
        raise ValueError(
            f"stop: {', '.join(map(repr, unknown))} is no token of the tokenizer in {tokenizer.name_or_path}; "
            f"its special tokens are {special}"
        )
    return tuple(dict.fromkeys(vocabulary[token] for token in stop))


def response_text(tokenizer: PreTrainedTokenizerBase, completion: Completion) -> str:
    """The text of a response up to the token that stopped it."""
    ids = completion.token_ids
    text = tokenizer.decode(ids[:-1] if completion.finish_reason == "stop" else ids)
    assert isinstance(text, str)  # of one sequence
    return text


def completion_grader(grader: Grader, tokenizer: PreTrainedTokenizerBase) -> CompletionGrader:
    """Grades completions by their text; `grader` stays the caller's to close."""

    def grade_all(completions: Sequence[Completion], questions: Sequence[Question]) -> list[Outcome]:
        texts = [response_text(tokenizer, completion) for completion in completions]
        return [verdict.outcome for verdict in grader.grade_all(texts, questions)]

    return grade_all
