"""Tiny base policies: their tokenizer, their architecture, and a supervised warm-up on an unreliable teacher."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from entropy_mechanism.config import ArithmeticSet, ProgramSet, TinyModel
from entropy_mechanism.data import arithmetic, programs

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

IGNORED = -100  # the label that transformers leaves out of the loss


WORDS = {
    "arithmetic": [sign + str(digit) for sign in "+-=" for digit in range(10)]
    + [f"\\boxed{{{digit}}}" for digit in range(10)],
    "programs": programs.WORDS,
}
"""The parts of each task's language."""

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
    says (transformers 5), and would silently cut the text in another way.
    """
    vocabulary = {piece: i for i, piece in enumerate([PAD, START, END, *sorted(ByteLevel.alphabet())])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        eos_token=END,
        pad_token=PAD,
        unk_token=None,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=512,
    )
    words = [*WORDS[task], "system\n", "user\n", "assistant\n"]
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    return tokenizer


def build_model(settings: TinyModel, tokenizer: Qwen2Tokenizer) -> Qwen2ForCausalLM:
    """A freshly initialised float32 Qwen2 policy; equal arguments give equal weights.

    The initial standard deviation matters: 0.02, usual for large models, leaves a width of 64 unable to learn
    the table within a short warm-up.
    """
    config = Qwen2Config(
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
        return Qwen2ForCausalLM(config).eval()


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

    model: Qwen2ForCausalLM
    log: tuple[WarmupStep, ...]
    statistics: dict[str, float]
    """`loss`: mean over the last tenth of the steps; `teacher_entropy`: the lowest loss that is possible, both in
    nats per solution token; `teacher_accuracy`: how often the teacher ends right; `seconds`; `parameters`."""


def warm_up(settings: TinyModel, tokenizer: Qwen2Tokenizer) -> WarmupResult:
    """Train a fresh policy to imitate the unreliable teacher on problems of the training split.

    The loss covers the solution including the final `<|im_end|>`. AdamW, learning rate rising over the first
    2 % of the steps and then falling linearly to zero, gradient norm clipped at one. Every step sees newly
    written solutions. Bit-equal for equal arguments on one thread of one machine.
    """
    warmup = settings.warmup
    model = build_model(settings, tokenizer).train()
    teacher, problems = _lessons(settings)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=warmup.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, foreach=True
    )
    rise = max(1, round(0.02 * warmup.steps))
    log = []
    started = time.perf_counter()
    for step, (ids, labels) in enumerate(_batches(settings, tokenizer, teacher, problems), start=1):
        share = min(step / rise, (warmup.steps - step + 1) / max(1, warmup.steps - rise))
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
        log.append(WarmupStep(step, loss.item(), share * warmup.learning_rate))
    seconds = time.perf_counter() - started
    tail = log[-max(1, len(log) // 10) :]
    accuracy, entropy = _teacher_reference(teacher, tokenizer, problems[:1000])
    statistics = {
        "loss": float(np.mean([entry.loss for entry in tail])),
        "teacher_entropy": entropy,
        "teacher_accuracy": accuracy,
        "seconds": seconds,
        "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
    }
    return WarmupResult(model.eval(), tuple(log), statistics)


def _lessons(settings: TinyModel) -> tuple[Teacher, list[str]]:
    """Who teaches, and the problems that are shown, all of the training split."""
    warmup = settings.warmup
    shown = {"split": "train", "problems": warmup.problems, "seed": settings.seed}
    if warmup.task == "arithmetic":
        teacher: Teacher = arithmetic.UnreliableTeacher(warmup.teacher)
        problems = arithmetic.generate(ArithmeticSet(kind="arithmetic", operands=warmup.operands, **shown))
    else:
        teacher = programs.UnreliableProgrammer(warmup.teacher)
        problems = programs.generate(ProgramSet(kind="programs", operations=warmup.operands, **shown))
    return teacher, [problem.problem for problem in problems]


def _batches(
    settings: TinyModel,
    tokenizer: Qwen2Tokenizer,
    teacher: Teacher,
    problems: list[str],
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token ids and labels, both [B, T], padded on the right; the prompt and the padding carry no label."""
    warmup = settings.warmup
    rng = np.random.default_rng([settings.seed, 1])
    backend = tokenizer.backend_tokenizer
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": problem}], tokenize=False, add_generation_prompt=True
        )
        for problem in problems
    ]
    for _ in range(warmup.steps):
        drawn = rng.integers(len(problems), size=warmup.batch).tolist()
        solutions = [teacher.write_solution(problems[i], rng) + END for i in drawn]
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


def _teacher_reference(teacher: Teacher, tokenizer: Qwen2Tokenizer, problems: list[str]) -> tuple[float, float]:
    """Exact accuracy of the teacher over `problems`, and its entropy in nats per solution token."""
    rng = np.random.default_rng(0)
    right, nats, tokens = 0.0, 0.0, 0
    for problem in problems:
        chance, entropy = teacher.reference(problem)
        right += chance
        nats += entropy
        tokens += len(tokenizer(teacher.write_solution(problem, rng) + END)["input_ids"])
    return right / len(problems), nats / tokens
