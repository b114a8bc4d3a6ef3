"""What was tried to make a step of the tiny task faster, and where the time is that is left.

    python benchmarks/tried.py

The step of rl_step.py on one thread, as it is and with one thing changed at a time. `start-up` is what the first
steps take longer than later ones. `matrix products` is the step as it is under torch's profiler: the time inside
matrix products and attention alone, which no rearrangement of the rest can save. `Prompts read once` says from
which share of saved tokens on that pays (`LEAST_SAVED` in rl/logprobs.py): forward and backward pass of random
models over 2 prompts x 4 responses. `Memory that was freed` is a first step with longer responses, with and
without `keep_freed_memory` of stages/runtime.py. `Weights in order` is sampling by random models with and
without rollouts/prepacked.py, and says from which size of a layer on that pays (`LEAST` there). `AdamW's step`
is the optimiser's alone.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
from measure import Row

WAYS = {
    "as it is": "",
    "whole rows": "each response read with its prompt, instead of each prompt once",
    "torch.compile": "log-probabilities and updates compiled for any length; needs a C++ compiler",
    "packed": "sequences one behind the other in a single row, without padding",
    "bfloat16": "matrix products in bfloat16 by autocast",
    "no filling": "torch's deterministic mode without filling new memory",
}
SHAPES = (("1 M", 256, 0.1), ("1 M", 256, 0.2), ("1 M", 256, 0.4), ("10 M", 128, 0.1), ("10 M", 128, 0.2))
"""Model of scaling.py, tokens of prompt and response together, and the prompt's share of them."""
SAMPLED = (("1 M", 8), ("1 M", 128), ("10 M", 8), ("10 M", 128), ("50 M", 8))
"""Model of scaling.py, and responses sampled at once."""
LONGER = (512, 1)
"""Tokens of prompt and response together, and steps, of the 10 M model of scaling.py that frees memory."""
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::_scaled_dot_product")


def main() -> None:
    """Measure every way and write the JSON file."""
    options, began = measure.options(__doc__), time.time()
    with tempfile.TemporaryDirectory() as folder:
        from rl_step import floor_seconds, work
        from trainer import make_tiny

        model = make_tiny(Path(folder), options.quick)
        asked = work(model, options.quick)
        asked["training"]["steps"] = 3 if options.quick else 10
        ways = [way for way in WAYS if not (options.quick and way == "torch.compile")]
        found = {way: measure.run(measured, asked | {"way": way}) for way in ways}
        inside = measure.run(seconds_in_products, asked)
        shapes = SHAPES[:1] if options.quick else SHAPES
        longer = [
            kept_or_not(Path(folder), keep, *((16, 1) if options.quick else LONGER)) for keep in (True, False)
        ]
        ordered = [
            row
            for threads in (1, 2)
            for row in measure.run(
                weights_in_order, {"sizes": SAMPLED[:2] if options.quick else SAMPLED}, threads
            )["rows"]
        ]
        optimiser = measure.run(
            adamw, {"models": {"tiny": str(model)} | ({} if options.quick else {"50 M": None}), "folder": folder}
        )["rows"]
        pays = measure.run(prompts_once, {"shapes": shapes, "folder": folder})["rows"]
        floor = floor_seconds(model, asked, found["as it is"], measure.rate(64, 2))
    usual = statistics.median(found["as it is"]["seconds"])
    rows: list[Row] = []
    for way, one in found.items():
        step = statistics.median(one["seconds"])
        started = one["warm"] - asked["warm"] * step
        row = {"tried": way, "what it is": WAYS[way], "step, s": step, "times as it is": step / usual}
        rows.append(row | {"start-up, s": started, "reward": one["reward"]})
    products: list[Row] = [
        {
            "part": "matrix products and attention",
            "s": inside["products"],
            "times the floor": inside["products"] / floor,
        },
        {"part": "all of the step", "s": usual, "times the floor": usual / floor},
    ]
    tables: dict[str, list[Row]] = {
        "One thing changed at a time": rows,
        "Matrix products alone": products,
        "Prompts read once": pays,
        "Memory that was freed": longer,
        "Weights in order": ordered,
        "AdamW's step": optimiser,
    }
    measure.write("tried", options.results, began, tables)


def measured(asked: dict[str, Any]) -> dict[str, Any]:
    """In a child: the training with the change that `asked["way"]` names."""
    import torch
    import trainer

    from entropy_mechanism.rl import logprobs

    states = logprobs.response_states
    way = asked.pop("way")
    if way == "whole rows":
        logprobs.LEAST_SAVED = 2
    elif way == "bfloat16":
        asked["training"] |= {"dtype": "bfloat16"}
    elif way == "packed":
        logprobs.response_states = lambda model, sequences, packing: states(model, sequences, True)
    elif way == "no filling":
        torch.utils.deterministic.fill_uninitialized_memory = False
    elif way == "torch.compile":
        logprobs.response_states = compiled(states)
    found, warm = trainer.ours(asked | {"warm": 0}), asked["warm"]
    return found | {"seconds": found["seconds"][warm:], "warm": sum(found["seconds"][:warm])}


def compiled(states: Callable[..., Any]) -> Callable[..., Any]:
    """`response_states` with the model's blocks compiled; sampling stays as it is."""
    import torch

    passes: dict[int, Any] = {}

    def compiled_states(model: Any, sequences: Any, packing: bool | None) -> Any:
        inner = model.model
        if id(inner) not in passes:
            passes[id(inner)] = torch.compile(inner.forward, dynamic=True)
        inner.forward = passes[id(inner)]
        try:
            return states(model, sequences, packing)
        finally:
            del inner.forward

    return compiled_states


def kept_or_not(folder: Path, keep: bool, context: int, steps: int) -> Row:
    """A training with long responses, with and without keeping the memory that it frees."""
    from scaling import SIZES, THREADS, VOCABULARY, step
    from trainer import make_random

    model = make_random(folder / "longer", *SIZES["10 M"], VOCABULARY)
    found = measure.run(in_the_kernel, step(model, context, 2, steps, 0, keep=keep), THREADS)
    row = {"freed memory": "kept, as it is" if keep else "given back", "context": context}
    return row | {"step, s": found["seconds"][0], "in the kernel, s": found["kernel"], "GB": found["peak_gb"]}


def in_the_kernel(asked: dict[str, Any]) -> dict[str, Any]:
    """In a child: a training, and the processor time of its threads inside the system."""
    import trainer

    began = os.times().system
    return trainer.ours(asked) | {"kernel": os.times().system - began}


def adamw(asked: dict[str, Any]) -> dict[str, Any]:
    """In a child: milliseconds of AdamW's step for each model, fused and as torch does it by itself on CPUs."""
    import torch
    from scaling import SIZES, VOCABULARY
    from trainer import make_random

    from entropy_mechanism.models.load import load_policy

    rows: list[Row] = []
    for name, known in asked["models"].items():
        folder = Path(known) if known else make_random(Path(asked["folder"]) / "adamw", *SIZES[name], VOCABULARY)
        model = load_policy(folder)
        for weight in model.parameters():
            weight.grad = torch.randn_like(weight)
        ways = [torch.optim.AdamW(model.parameters(), lr=1e-6, fused=fused) for fused in (True, False)]
        taken: list[list[float]] = [[], []]
        for _ in range(11):
            for optimizer, seconds in zip(ways, taken, strict=True):
                began = time.perf_counter()
                optimizer.step()
                seconds.append(1000 * (time.perf_counter() - began))
        fused, loop = (statistics.median(seconds[1:]) for seconds in taken)  # the first step makes the moments
        rows.append({"model": name, "fused, ms": fused, "in a loop, ms": loop, "fused / loop": fused / loop})
    return {"rows": rows}


def weights_in_order(asked: dict[str, Any]) -> dict[str, Any]:
    """In a child: a row for each size."""
    with tempfile.TemporaryDirectory() as folder:
        return {"rows": [ordered_or_not(Path(folder), *size) for size in asked["sizes"]]}


def ordered_or_not(folder: Path, name: str, sequences: int) -> Row:
    """Seconds of sampling 48 tokens behind 16, the fastest of three with each choice of layers."""
    import torch
    from scaling import SAMPLES, SIZES, VOCABULARY
    from trainer import make_random

    from entropy_mechanism.models.load import load_policy
    from entropy_mechanism.rollouts import prepacked
    from entropy_mechanism.rollouts.engine import Sampling
    from entropy_mechanism.rollouts.transformers_engine import TransformersEngine
    from entropy_mechanism.stages.runtime import keep_freed_memory

    keep_freed_memory()
    model = load_policy(make_random(folder / name.replace(" ", ""), *SIZES[name], VOCABULARY))
    engine = TransformersEngine(model, VOCABULARY)
    prompts = [[first] * 16 for first in range(sequences // SAMPLES)]
    seeds = [range(SAMPLES)] * len(prompts)
    taken: dict[int, list[float]] = {sys.maxsize: [], 0: [], prepacked.LEAST: []}
    for _ in range(3):
        for least, seconds in taken.items():  # the usual one is set last, and so left for the next call
            prepacked.LEAST = least
            began = time.perf_counter()
            engine.generate(prompts, Sampling(1.0, 48, ()), seeds)
            seconds.append(time.perf_counter() - began)
    none, every, large = (min(seconds) for seconds in taken.values())
    sizes = {"parameters": name, "sequences": sequences, "threads": torch.get_num_threads()}
    times = {"large layers, s": large, "every layer, s": every, "none, s": none}
    return sizes | times | {"large / none": large / none, "every / none": every / none}


def prompts_once(asked: dict[str, Any]) -> dict[str, Any]:
    """In a child: a row for each shape."""
    return {"rows": [once_or_whole(Path(asked["folder"]), *shape) for shape in asked["shapes"]]}


def once_or_whole(folder: Path, name: str, context: int, share: float) -> Row:
    """Seconds of reading prompts once and of reading whole rows, the fastest of three each."""
    import torch
    from scaling import SAMPLES, SIZES, VOCABULARY
    from trainer import make_random

    from entropy_mechanism.models.load import load_policy
    from entropy_mechanism.rl import logprobs
    from entropy_mechanism.rl.batch import Sequences

    model = load_policy(make_random(folder / name.replace(" ", ""), *SIZES[name], VOCABULARY))
    prompt = round(context * share)
    rows = torch.randint(VOCABULARY, (2 * SAMPLES, context), generator=torch.Generator().manual_seed(0)).tolist()
    prompts = [rows[row // SAMPLES][:prompt] for row in range(len(rows))]
    sequences = Sequences(prompts, [row[prompt:] for row in rows])
    taken: dict[float, list[float]] = {0.0: [], 2.0: []}
    for _ in range(3):
        for least, seconds in taken.items():
            logprobs.LEAST_SAVED = least
            began = time.perf_counter()
            logprobs.token_statistics(model, sequences).logprob_N.sum().backward()
            seconds.append(time.perf_counter() - began)
            model.zero_grad()
    once, whole = (min(seconds) for seconds in taken.values())
    sizes = {"parameters": name, "context": context, "saved": f"{logprobs.share_saved(sequences):.1%}"}
    return sizes | {"once, s": once, "whole rows, s": whole, "once / whole rows": once / whole}


def seconds_in_products(asked: dict[str, Any]) -> dict[str, Any]:
    """In a child: seconds a timed step inside matrix products and attention, forward and backward."""
    import trainer
    from torch.profiler import ProfilerActivity, profile

    from entropy_mechanism.stages.training import MetricsLog

    seen, log_row, rows = profile(activities=[ProfilerActivity.CPU]), MetricsLog.row, 0
    warm, steps = asked["warm"], asked["training"]["steps"]

    def row(log: MetricsLog, values: dict[str, float | None]) -> None:
        nonlocal rows
        log_row(log, values)
        rows += 1
        if rows == warm:
            seen.start()
        elif rows == steps:
            seen.stop()

    MetricsLog.row = row
    trainer.ours(asked)
    spent = sum(event.self_cpu_time_total for event in seen.key_averages() if event.key.startswith(PRODUCTS))
    return {"products": spent / 1e6 / (steps - warm)}


if __name__ == "__main__":
    main()
