"""Tiny base policies: their tokenizer, their architecture, and a supervised warm-up on an unreliable teacher."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)

from entropy_mechanism.config import ArithmeticSet, ProgramSet, TinyModel, Warmup
from entropy_mechanism.data import arithmetic, programs

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

IGNORED = -100  # the label that transformers leaves out of the loss

ARCHITECTURES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}
"""Configuration and model of each architecture."""

WORDS = {
    "arithmetic": [sign + str(digit) for sign in "+-=" for digit in range(10)]
    + [f"\\boxed{{{digit}}}" for digit in range(10)],
    "programs": programs.WORDS,
}
"""The parts of each task's language."""
WORDS["both"] = [word for words in WORDS.values() for word in words]

Teacher = arithmetic.UnreliableTeacher | programs.UnreliableProgrammer

FEED_FORWARD = 4
"""Inner width of a block's MLP relative to the width."""


def build_tokenizer(task: str = "arithmetic") -> Qwen2Tokenizer:
    """The tokenizer of a task: single bytes, and whole tokens for the parts of its language.

    In arithmetic a step `+5`, a result `=2`, a boxed digit and a role line are one token each, so that an operand
    is copied and a result is looked up in one position: responses stay short and the tokens that carry a choice
    are not drowned by copies. In programs a statement is one token, for the same reason. All other text is spelled
    in bytes; nothing is unknown, and decoding gives it back.

    The class is Qwen2's, since `AutoTokenizer` insists on it for a Qwen2 model whatever the saved tokenizer
    says (transformers 5), and would silently cut the text in another way. For a Llama or Mistral model it takes
    the saved pipeline as it is.
    """
    vocabulary = {piece: i for i, piece in enumerate([PAD, START, END, *sorted(ByteLevel.alphabet())])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        eos_token=END,
        pad_token=PAD,
        unk_token=None,  # type: ignore[arg-type]  # nothing is unknown; its annotation leaves None out
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=512,
    )
    words = [*WORDS[task], "system\n", "user\n", "assistant\n"]
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    return tokenizer


def prompt_text(tokenizer: Qwen2Tokenizer, turns: list[dict[str, str]]) -> str:
    """What the turns of a chat are to a policy, up to where its response begins."""
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str)  # of one chat, and no ids
    return text


def build_model(settings: TinyModel, tokenizer: Qwen2Tokenizer) -> PreTrainedModel:
    """A freshly initialised float32 policy; equal arguments give equal weights.

    The initial standard deviation matters: 0.02, usual for large models, leaves a width of 64 unable to learn
    the table within a short warm-up.
    """
    configuration, architecture = ARCHITECTURES[settings.architecture]
    config = configuration(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=FEED_FORWARD * settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        max_position_embeddings=tokenizer.model_max_length,
        initializer_range=settings.init_std,
        tie_word_embeddings=settings.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return architecture(config).eval()


@dataclass(frozen=True)
class WarmupStep:
    """What one step of the warm-up measured."""

    step: int
    loss: float
    """Mean cross-entropy per solution token, in nats."""
    learning_rate: float


@dataclass(frozen=True)
class WarmupResult:
    """A warmed-up policy and how it came about."""

    model: PreTrainedModel
    log: tuple[WarmupStep, ...]
    statistics: dict[str, float]
    """`loss`: mean over the last tenth of the steps; `teacher_entropy`: the lowest loss that is possible, both in
    nats per solution token; `teacher_accuracy`: how often the teacher ends right; `seconds`; `parameters`."""


def warm_up(
    settings: TinyModel,
    tokenizer: Qwen2Tokenizer,
    before_step: Callable[[int, int], None] = lambda done, steps: None,
) -> WarmupResult:
    """Train a fresh policy to imitate the unreliable teacher, then that of `settings.instruct` where there is one.

    All problems are of the training split. The loss covers the solution including the final `<|im_end|>`. AdamW,
    learning rate rising over the first 2 % of the steps and then falling linearly to zero, gradient norm clipped
    at one. Every step sees newly written solutions. Bit-equal for equal arguments on one thread of one machine.
    `before_step` is told how many steps are done, and of how many.
    """
    model = build_model(settings, tokenizer).train()
    log: list[WarmupStep] = []
    seconds = 0.0
    warmups = [warmup for warmup in (settings.warmup, settings.instruct) if warmup]
    steps = sum(warmup.steps for warmup in warmups)
    for warmup in warmups:
        lessons = _lessons(warmup, settings.seed)
        started = time.perf_counter()
        batches = _batches(warmup, settings.seed, tokenizer, lessons)
        _imitate(model, warmup, batches, log, lambda done: before_step(done, steps))
        seconds += time.perf_counter() - started
    tail = log[-max(1, warmup.steps // 10) :]
    accuracy, entropy = _teacher_reference(lessons, tokenizer)
    statistics = {
        "loss": float(np.mean([entry.loss for entry in tail])),
        "teacher_entropy": entropy,
        "teacher_accuracy": accuracy,
        "seconds": seconds,
        "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
    }
    return WarmupResult(model.eval(), tuple(log), statistics)


def _imitate(
    model: PreTrainedModel,
    warmup: Warmup,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    log: list[WarmupStep],
    before_step: Callable[[int], None],
) -> None:
    """One warm-up; its steps are added to `log`."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=warmup.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, foreach=True
    )
    rise = max(1, round(0.02 * warmup.steps))
    before = len(log)
    for step, (ids, labels) in enumerate(batches, start=1):
        share = min(step / rise, (warmup.steps - step + 1) / max(1, warmup.steps - rise))
        before_step(len(log))
        for group in optimizer.param_groups:
            group["lr"] = share * warmup.learning_rate
        # No attention mask: padding stands on the right, where a causal model never looks back at it.
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        log.append(WarmupStep(before + step, loss.item(), share * warmup.learning_rate))


@dataclass(frozen=True)
class _Lessons:
    """A task's teacher and the problems that are shown, all of the training split."""

    teacher: Teacher
    problems: list[str]


def _lessons(warmup: Warmup, seed: int) -> list[_Lessons]:
    """What is taught, task by task."""
    shown: dict[str, Any] = {"split": "train", "problems": warmup.problems, "seed": seed}
    lessons = []
    if warmup.task in ("arithmetic", "both"):
        numbers = ArithmeticSet(kind="arithmetic", operands=warmup.operands, **shown)
        problems = [problem.problem for problem in arithmetic.generate(numbers)]
        lessons.append(_Lessons(arithmetic.UnreliableTeacher(warmup.teacher), problems))
    if warmup.task in ("programs", "both"):
        settings = ProgramSet(kind="programs", operations=warmup.operations, **shown)
        problems = [problem.problem for problem in programs.generate(settings)]
        lessons.append(_Lessons(programs.UnreliableProgrammer(warmup.teacher), problems))
    return lessons


def _batches(
    warmup: Warmup,
    seed: int,
    tokenizer: Qwen2Tokenizer,
    lessons: list[_Lessons],
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token ids and labels, both [B, T], padded on the right; the prompt and the padding carry no label."""
    rng = np.random.default_rng([seed, 1])
    problems = [problem for lesson in lessons for problem in lesson.problems]
    teachers = [lesson.teacher for lesson in lessons for _ in lesson.problems]
    backend = tokenizer.backend_tokenizer
    prompts = [prompt_text(tokenizer, [{"role": "user", "content": problem}]) for problem in problems]
    for _ in range(warmup.steps):
        drawn = rng.integers(len(problems), size=warmup.batch).tolist()
        solutions = [teachers[i].write_solution(problems[i], rng) + END for i in drawn]
        asked = backend.encode_batch_fast([prompts[i] for i in drawn])
        written = backend.encode_batch_fast(solutions)
        rows = [(a.ids, w.ids) for a, w in zip(asked, written, strict=True)]
        longest = max(len(a) + len(w) for a, w in rows)
        ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
        labels = torch.full((len(rows), longest), IGNORED)
        for row, (a, w) in enumerate(rows):
            ids[row, : len(a) + len(w)] = torch.tensor(a + w)
            labels[row, len(a) : len(a) + len(w)] = torch.tensor(w)
        yield ids, labels


def _teacher_reference(lessons: list[_Lessons], tokenizer: Qwen2Tokenizer) -> tuple[float, float]:
    """Exact accuracy of the teachers over 1,000 problems, and their entropy in nats per solution token."""
    rng = np.random.default_rng(0)
    right, nats, tokens, count = 0.0, 0.0, 0, 0
    for lesson in lessons:
        for problem in lesson.problems[: 1000 // len(lessons)]:
            chance, entropy = lesson.teacher.reference(problem)
            right += chance
            nats += entropy
            tokens += len(tokenizer(lesson.teacher.write_solution(problem, rng) + END)["input_ids"])
            count += 1
    return right / count, nats / tokens
