"""What was tried to make a step of the tiny task faster, and where the time is that is left.

    python benchmarks/tried.py

The step of rl_step.py on one thread, as it is and with one thing changed at a time. `start-up` is what the first
steps take longer than later ones. `matrix products` is the step as it is under torch's profiler: the time inside
matrix products and attention alone, which no rearrangement of the rest can save.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
from measure import Row

WAYS = {
    "as it is": "",
    "torch.compile": "the passes over whole sequences compiled for any length; needs a C++ compiler",
    "packed": "sequences one behind the other in a single row, without padding",
    "bfloat16": "matrix products in bfloat16 by autocast",
    "no filling": "torch's deterministic mode without filling new memory",
}
PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::_scaled_dot_product")


def main() -> None:
    """Measure every way and write the JSON file."""
    options, began = measure.options(__doc__), time.time()
    with tempfile.TemporaryDirectory() as folder:
        from rl_step import floor_seconds, work
        from trainer import make_tiny

        model = make_tiny(Path(folder) / "model", warmup_steps=5 if options.quick else None)
        asked = work(model, options.quick)
        ways = [way for way in WAYS if not (options.quick and way == "torch.compile")]
        found = {way: measure.run("tried.py", asked | {"way": way}) for way in ways}
        inside = measure.run("tried.py", asked | {"way": "profile"})
        rate = measure.run("trainer.py", {"what": "rate", "width": 64, "seconds": 2})["flops"]
        floor = floor_seconds(model, asked, found["as it is"], rate)
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
    tables = {"One thing changed at a time": rows, "Matrix products alone": products}
    measure.write("tried", options.results, began, tables)


def measured(asked: dict[str, Any]) -> dict[str, Any]:
    """In a child: the training with the change that `asked["way"]` names."""
    import torch
    import trainer

    from entropy_mechanism.rl import logprobs

    states = logprobs.response_states
    way = asked.pop("way")
    if way == "bfloat16":
        asked["training"] |= {"dtype": "bfloat16"}
    elif way == "packed":
        logprobs.response_states = lambda model, sequences, packing: states(model, sequences, True)
    elif way == "no filling":
        torch.utils.deterministic.fill_uninitialized_memory = False
    elif way == "torch.compile":
        logprobs.response_states = compiled(states)
    elif way == "profile":
        return {"products": seconds_in_products(asked)}
    began = time.perf_counter()
    found = trainer.ours(asked | {"warm": 0})
    seconds, warm = found["seconds"], asked["warm"]
    return found | {"seconds": seconds[warm:], "warm": sum(seconds[:warm]), "whole": time.perf_counter() - began}


def compiled(states: Callable[..., Any]) -> Callable[..., Any]:
    """`response_states` with the model's blocks compiled; sampling, which has a cache, stays as it is."""
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


def seconds_in_products(asked: dict[str, Any]) -> float:
    """Seconds a step inside matrix products and attention, forward and backward."""
    import trainer
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        trainer.ours(asked | {"warm": 0})
    spent = sum(event.self_cpu_time_total for event in seen.key_averages() if event.key.startswith(PRODUCTS))
    return spent / 1e6 / asked["training"]["steps"]


if __name__ == "__main__":
    if measure.is_child():
        import torch

        asked = measure.settings()
        torch.set_num_threads(asked["threads"])
        measure.reply(measured(asked))
    else:
        main()
