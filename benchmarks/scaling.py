"""How a step's cost grows with model, length and batch, against TRL and against the arithmetic floor.

    python benchmarks/scaling.py

Random Qwen2 models with a vocabulary of 4,096; a quarter of the context is prompt, the rest response, and no
response ends early. Two prompts x 4 responses, 2 updates, in float32 on both cores. Where steps are short, the
trainers take turns. The first step, which allocates the optimiser's state, is not timed; but for 10 M at 1,024
tokens, where that is little of a step. Costs of the batch are of the smallest model at context 256.
"""

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
    ("10 M", 64, 3, 1, 2),
    ("10 M", 1024, 1, 0, 1),
    ("50 M", 64, 2, 1, 2),
    ("150 M", 64, 1, 1, 1),
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
    """What both trainers take for a step, and what it takes at least; in a second round the other is first."""
    training = asked["training"]
    size = floor.Step(training["prompts"], training["samples"], asked["prompt_tokens"], training["max_response"])
    least = sum(floor.step_flops(from_folder(Path(asked["model"])), size).values()) / rate
    found: dict[str, dict[str, Any]] = {}
    steps: dict[str, list[float]] = {what: [] for what in TRAINERS}
    for turn in range(rounds):
        for what in list(TRAINERS)[:: -1 if turn % 2 else 1]:
            found[what] = measure.run(TRAINERS[what], asked, threads)
            steps[what] += found[what]["seconds"]
            if found[what]["response_tokens"] != training["max_response"]:
                wrote = found[what]["response_tokens"]
                raise ValueError(f"{what} wrote {wrote} tokens, not {training['max_response']}")
    return {
        what: one | {"step": statistics.median(steps[what]), "tokens": size.tokens, "floor": least}
        for what, one in found.items()
    }


def row(label: dict[str, Any], found: dict[str, dict[str, Any]]) -> Row:
    """A line of the table."""
    own, other = found["ours"], found["trl"]
    return label | {
        "seconds a step": own["step"],
        "TRL": other["step"],
        "TRL / this": other["step"] / own["step"],
        "times the floor": own["step"] / own["floor"],
        "ms a token": 1000 * own["step"] / own["tokens"],
        "GB": own["peak_gb"],
        "GB, TRL": other["peak_gb"],
    }


def main() -> None:
    """Measure and write the JSON file."""
    options, began = measure.options(__doc__), time.time()
    grid, batches = ([("1 M", 16, 1, 1, 2)], (4,)) if options.quick else (GRID, BATCHES)
    sizes, lengths, batch_rows = {}, [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(one[0] for one in grid):
            layers, width, heads, inner = SIZES[name]
            model = make_random(Path(folder) / name.replace(" ", ""), layers, width, heads, inner, VOCABULARY)
            sizes[name] = (model, measure.rate(width, 1, THREADS))
        for name, context, steps, warm, rounds in grid:
            model, rate = sizes[name]
            label = {"parameters": name, "context": context, "sequences": 2 * SAMPLES}
            asked = step(model, context, 2, steps, warm)
            lengths.append(row(label, measured(asked, rate, rounds=rounds)))
            print(lengths[-1], flush=True)
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
    tables: dict[str, list[Row]] = {"Model and length": lengths, "Batch": batch_rows}
    measure.write("scaling", options.results, began, tables, goals)


if __name__ == "__main__":
    main()
