"""How a step's cost grows with model, length and batch, against TRL and against the arithmetic floor.

    python benchmarks/scaling.py

Random Qwen2 models with a vocabulary of 4,096; a quarter of the context is prompt, the rest response, and no
response ends early. Two prompts x 4 responses, 2 updates, in float32 on both cores. Where steps are short, the
trainers take turns. The first step, which allocates the optimiser's state, is not timed; but for 10 M at 1,024
tokens, where that is little of a step. Costs of the batch are of the smallest model at context 256.
"""

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import floor
import measure
from measure import Goal, Row
from trainer import TRAINERS, make_random

from entropy_mechanism.shapes import from_folder

VOCABULARY = 4096
THREADS = 2
# layers, width, heads, inner width; parameters in millions, the tied embedding included
SIZES = {
    "1 M": (2, 128, 2, 512),
    "10 M": (5, 320, 5, 1280),
    "50 M": (7, 640, 10, 2560),
    "150 M": (11, 1024, 16, 2816),
}
# model, context, steps timed after how many others, and how often each trainer is measured
GRID = [
    ("1 M", 64, 5, 2, 2),
    ("1 M", 256, 3, 1, 2),
    ("1 M", 1024, 1, 1, 1),
    ("10 M", 64, 4, 1, 3),
    ("10 M", 1024, 1, 0, 1),
    ("50 M", 64, 2, 1, 2),
    ("150 M", 64, 1, 1, 2),
]
BATCHES = (32,)
"""Prompts, with 4 responses each; two are in GRID."""
SAMPLES = 4


def step(model: Path, context: int, prompts: int, steps: int, warm: int, **more: Any) -> dict[str, Any]:
    """A step of `prompts` prompts with SAMPLES responses each, of `context` tokens together with the prompt."""
    training = {
        "prompts": prompts,
        "samples": SAMPLES,
        "updates": 2,
        "max_response": context - context // 4,
        "steps": warm + steps,
        "filter_groups": False,
        "max_batches": 1,
        "validate_every": 1_000_000,
        "checkpoint_every": 1_000_000,
        "record_tokens_every": 0,
        "learning_rate": 1e-6,
    }
    asked = {"model": str(model), "prompt_tokens": context // 4, "training": training, "warm": warm}
    asked["training"] |= more.pop("training", {})
    return asked | more


def measured(
    asked: dict[str, Any], rate: float, threads: int = THREADS, rounds: int = 1
) -> dict[str, dict[str, Any]]:
    """What both trainers take for a step, and what it takes at least; in every other round the other is first.

    `step` is the median of all rounds, `by round` those of each, `phases` their mean.
    """
    training = asked["training"]
    size = floor.Step(training["prompts"], training["samples"], asked["prompt_tokens"], training["max_response"])
    least = sum(floor.step_flops(from_folder(Path(asked["model"])), size).values()) / rate
    found: dict[str, list[dict[str, Any]]] = {what: [] for what in TRAINERS}
    for turn in range(rounds):
        for what in list(TRAINERS)[:: -1 if turn % 2 else 1]:
            one = measure.run(TRAINERS[what], asked, threads)
            found[what].append(one)
            if one["response_tokens"] != training["max_response"]:
                raise ValueError(f"{what} wrote {one['response_tokens']} tokens, not {training['max_response']}")
    return {
        what: {
            "step": statistics.median(itertools.chain.from_iterable(one["seconds"] for one in all_rounds)),
            "by round": [statistics.median(one["seconds"]) for one in all_rounds],
            "phases": {
                phase: statistics.fmean(one["phases"][phase] for one in all_rounds)
                for phase in all_rounds[0]["phases"]
            },
            "peak_gb": max(one["peak_gb"] for one in all_rounds),
            "tokens": size.tokens,
            "floor": least,
        }
        for what, all_rounds in found.items()
    }


def row(label: dict[str, Any], found: dict[str, dict[str, Any]]) -> Row:
    """A line of the table."""
    own, other = found["ours"], found["trl"]
    ratios = [theirs / ours for ours, theirs in zip(own["by round"], other["by round"], strict=True)]
    return label | {
        "seconds a step": own["step"],
        "TRL": other["step"],
        "TRL / this": other["step"] / own["step"],
        "by round": f"{min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) > 1 else "",
        "times the floor": own["step"] / own["floor"],
        "ms a token": 1000 * own["step"] / own["tokens"],
        "GB": own["peak_gb"],
        "GB, TRL": other["peak_gb"],
    }


def phases(label: dict[str, Any], found: dict[str, dict[str, Any]]) -> Row:
    """Where the seconds of both go; the rest is updates, nearly all of it."""
    seconds: Row = {}
    for phase, name in {"sample": "sampling", "logprob": "log-probs"}.items():
        for what, whose in {"ours": "", "trl": ", TRL"}.items():
            seconds[name + whose] = found[what]["phases"][phase]
    for what, whose in {"ours": "", "trl": ", TRL"}.items():
        every = found[what]["phases"]
        seconds["updates, rest" + whose] = sum(every.values()) - every["sample"] - every["logprob"]
    return label | seconds


def main() -> None:
    """Measure and write the JSON file."""
    options, began = measure.options(__doc__), time.time()
    grid, batches = ([("1 M", 16, 1, 1, 2)], (4,)) if options.quick else (GRID, BATCHES)
    sizes, lengths, spent, batch_rows = {}, [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(one[0] for one in grid):
            layers, width, heads, inner = SIZES[name]
            model = make_random(Path(folder) / name.replace(" ", ""), layers, width, heads, inner, VOCABULARY)
            # another program may disturb one of two moments
            sizes[name] = (model, max(measure.rate(width, 1, THREADS) for _ in range(2)))
        for name, context, steps, warm, rounds in grid:
            model, rate = sizes[name]
            label = {"parameters": name, "context": context, "sequences": 2 * SAMPLES}
            asked = step(model, context, 2, steps, warm)
            found = measured(asked, rate, rounds=rounds)
            lengths.append(row(label, found))
            spent.append(phases(label, found))
            print(lengths[-1], spent[-1], flush=True)
        model, rate = sizes["1 M"]
        context = 16 if options.quick else 256
        batch_rows += [known for known in lengths if (known["parameters"], known["context"]) == ("1 M", context)]
        for prompts in batches:
            label = {"parameters": "1 M", "context": context, "sequences": prompts * SAMPLES}
            asked = step(model, context, prompts, 1, 1)
            batch_rows.append(row(label, measured(asked, rate)))
            print(batch_rows[-1], flush=True)
    everywhere = [*lengths, *batch_rows]
    goals = [
        Goal(
            "TRL's step, times this project's, everywhere", min(r["TRL / this"] for r in everywhere), 1, "x", True
        )
    ]
    for name in dict.fromkeys(r["parameters"] for r in lengths):
        costs = [r["ms a token"] for r in lengths if r["parameters"] == name]
        if len(costs) > 1:
            goals.append(
                Goal(f"dearest token over cheapest as length grows, {name}", max(costs) / min(costs), 1.2, "x")
            )
    costs = [r["ms a token"] for r in batch_rows]
    goals.append(Goal("dearest token over cheapest as the batch grows, 1 M", max(costs) / min(costs), 1.2, "x"))
    tables: dict[str, list[Row]] = {
        "Model and length": lengths,
        "Where a step's time goes, seconds": spent,
        "Batch": batch_rows,
    }
    measure.write("scaling", options.results, began, tables, goals)


if __name__ == "__main__":
    main()
