"""Log-probabilities and entropies: time and peak memory, beside the plain computation, TRL's and Liger's.

    python benchmarks/logprobs.py

512 tokens of width 896 in chunks of 128, each variant in a process of its own on one thread of the CPU, in
float32; at the smaller vocabulary the fastest of three times. Memory is the peak of its resident memory above what
it held with weights, hidden states and targets in place; gradients count. `plain` is log_softmax of the full
logits and autograd, `TRL` the head that its trainer uses, `Liger, no entropy` the log-probabilities inside Liger's
GRPO loss. All give the same log-probabilities, entropies and gradients; where they do not, the benchmark fails.
"""

import time
from collections.abc import Callable
from typing import Any

import measure
from measure import Goal, Row

VOCABULARIES = (32_000, 151_936)
VARIANTS = ("plain", "this project", "TRL", "Liger, no entropy")
MODES = {
    "none": (),
    "log-probs": ("logprob",),
    "both": ("logprob", "entropy"),
}


SMALL = 50_000
"""A vocabulary up to which variants are timed `TIMES` times and the fastest counts; beyond, once."""
TIMES = 3


def main() -> None:
    """Measure every variant and write the JSON file."""
    options, began = measure.options(__doc__), time.time()
    tokens, width = (32, 16) if options.quick else (512, 896)
    rows, doubled = [], []
    vocabularies = (512,) if options.quick else VOCABULARIES
    for vocabulary in vocabularies:
        for mode, gradient in MODES.items():
            asked = {"tokens": tokens, "width": width, "chunk": tokens // 4, "vocabulary": vocabulary}
            asked["gradient"] = gradient
            able = [name for name in VARIANTS if "entropy" not in gradient or "no entropy" not in name]
            here = [line(mode, asked | {"variant": name}) for name in able]
            compare(here)
            rows += here
            if mode == "log-probs" and vocabulary == vocabularies[-1]:  # chunks far above the allocator's noise
                rows.append(line(mode, asked | {"variant": "this project", "tokens": 2 * tokens}))
                doubled.append(rows[-1]["GB"] / here[VARIANTS.index("this project")]["GB"])
    for row in rows:
        plain = next(other for other in rows if same_place(row, other) and other["computation"] == "plain")
        row["time / plain"] = row["seconds"] / row["tokens"] / (plain["seconds"] / plain["tokens"])
        row["memory / plain"] = row["GB"] / plain["GB"]
        del row["sums"]
    own = [row for row in rows if row["computation"] == "this project"]
    goals = [
        Goal(
            "log-prob and entropy, times the plain computation's time",
            max(r["time / plain"] for r in own),
            1.15,
            "x",
        ),
        Goal("peak memory at twice the tokens, times that at once", max(doubled), 1.1, "x"),
    ]
    measure.write("logprobs", options.results, began, {"": rows}, goals)


def line(mode: str, asked: dict[str, Any]) -> Row:
    """One measurement as a row."""
    found = measure.run(measured, asked)
    return {
        "vocabulary": asked["vocabulary"],
        "computation": asked["variant"],
        "gradient": mode,
        "tokens": asked["tokens"],
        "GB": found["bytes"] / 1e9,
        "seconds": found["seconds"],
        "sums": found["sums"],
    }


def same_place(one: Row, other: Row) -> bool:
    """Whether two rows are of the same vocabulary and gradient."""
    return all(one[key] == other[key] for key in ("vocabulary", "gradient"))


def compare(rows: list[Row]) -> None:
    """Raise ValueError where a variant's numbers are not those of the plain computation."""
    for row in rows:
        for name, value in row["sums"].items():
            expected = rows[0]["sums"][name]
            if abs(value - expected) > 1e-3 * abs(expected):
                raise ValueError(f"{row['computation']}: {name} is {value}, in the plain computation {expected}")


def measured(asked: dict[str, Any]) -> dict[str, Any]:
    """Bytes above the weights and seconds of one variant, in this process, and sums to compare it by."""
    import torch

    torch.manual_seed(0)
    tokens, width, vocabulary, wanted = (asked[key] for key in ("tokens", "width", "vocabulary", "gradient"))
    weight = torch.empty(vocabulary, width).uniform_(-1, 1).mul_((3 / width) ** 0.5).requires_grad_(bool(wanted))
    hidden = torch.randn(tokens, width).requires_grad_(bool(wanted))
    target = torch.randint(0, vocabulary, (tokens,))
    variants: dict[str, Callable[..., Any]] = {
        "plain": plain,
        "this project": chunked,
        "TRL": trl,
        "Liger, no entropy": liger,
    }
    compute, both = variants[asked["variant"]], "entropy" in wanted
    compute(hidden[:2].detach(), weight[:64].detach(), target[:2] % 64, both, asked["chunk"])  # imports
    measure.forget_peak()
    before, peak, seconds = measure.resident_bytes(), 0, []
    for _ in range(TIMES if vocabulary <= SMALL else 1):
        hidden.grad = weight.grad = None
        began = time.perf_counter()
        with torch.set_grad_enabled(bool(wanted)):
            logprob, entropy = compute(hidden, weight, target, both, asked["chunk"])
            if wanted:
                (logprob.mean() + entropy.mean() if both else logprob.mean()).backward()
        seconds.append(time.perf_counter() - began)
        peak = peak or measure.peak_bytes() - before  # later times find what the first one left allocated
    sums = {"log-probability": logprob.mean().item()}
    if entropy is not None:
        sums["entropy"] = entropy.mean().item()
    if wanted:
        sums |= {"gradient of hidden states": hidden.grad.norm().item(), "of the head": weight.grad.norm().item()}
    return {"bytes": peak, "seconds": min(seconds), "sums": sums}


def plain(hidden, weight, target, both, chunk):
    """As it is commonly written."""
    import torch

    logprobs = (hidden @ weight.T).log_softmax(-1)
    with torch.set_grad_enabled(both and torch.is_grad_enabled()):
        entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, target[:, None]).squeeze(-1), entropy


def chunked(hidden, weight, target, both, chunk):
    """This project's."""
    from entropy_mechanism.rl.head import head_statistics

    return head_statistics(hidden, weight, target, chunk=chunk, entropy_gradient=both)


def trl(hidden, weight, target, both, chunk):
    """The head that TRL's trainers use, with their chunk of the vocabulary."""
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE, _ChunkedLogProbFunction

    size = _CHUNKED_LOGPROB_CHUNK_SIZE
    found = _ChunkedLogProbFunction.apply(hidden, weight, None, target, 1.0, size, None, 1.0, ("entropy",))
    return found[0], found[1]


def liger(hidden, weight, target, both, chunk):
    """The log-probabilities inside Liger's GRPO loss, in its own chunks."""
    from liger_kernel.chunked_loss.fused_linear_ppo import LigerFusedLinearPPOBase

    return LigerFusedLinearPPOBase.chunk_forward(hidden[None], weight, target[None])[0], None


if __name__ == "__main__":
    main()
