"""What Clip-Cov and KL-Cov add to a step: seconds in which tokens are selected, by scope and policy.

    python benchmarks/selection.py

The tiny experiment's step (rl_step.py) on one thread, two trainings at a time. Where scope `minibatch`
needs the current policy, an update of several micro-batches is read once more without gradient, to select over all
of it: `pass ahead`, beside the time in which the same tokens are read for the old log-probabilities.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
from measure import Goal

OBJECTIVES = {
    "clip-cov": {"fraction": 0.02, "covariance_low": 1, "covariance_high": 15, "clip_low": 0.2, "clip_high": 0.2},
    "kl-cov": {"fraction": 0.03, "coefficient": 2},
}
WAYS = {
    "rollout, old": ("rollout", "old", 1),
    "microbatch, current": ("microbatch", "current", 2),
    "minibatch, old": ("minibatch", "old", 1),
    "minibatch, old, two micro-batches": ("minibatch", "old", 2),
    "minibatch, current": ("minibatch", "current", 1),
    "minibatch, current, two micro-batches": ("minibatch", "current", 2),
}
"""Scope, policy, and micro-batches of an update."""
MICRO_BATCHES = {1: 65_536, 2: 1400}
"""`micro_batch_tokens` for that many, of 64 responses to an update; see `parts` of the findings."""


def measured(asked: dict[str, Any]) -> dict[str, Any]:
    """In a child: a training with clocks around the selection and the pass ahead of it, in seconds a step.

    `calls` are those of the model without gradient, a step, in that pass and for the old log-probabilities.
    """
    import torch
    import trainer

    from entropy_mechanism.rl import loop, update
    from entropy_mechanism.rl.policy import Policy

    seconds, parts, split = {"select": 0.0, "ahead": 0.0}, [], update._micro_batches
    calls, running, read = {"ahead": 0, "old": 0}, set(), Policy.read

    def clocked(name, function):
        def timed(*given):
            running.add(name)
            began = time.perf_counter()
            found = function(*given)
            seconds[name] += time.perf_counter() - began
            running.discard(name)
            return found

        return timed

    def counting(*given, **more):
        calls["ahead" if "ahead" in running else "old"] += not torch.is_grad_enabled()
        return read(*given, **more)

    def counted(*given):
        parts.append(len(found := split(*given)))
        return found

    loop.select = update.select = clocked("select", update.select)
    update._select_ahead = clocked("ahead", update._select_ahead)
    update._micro_batches = counted
    Policy.read = counting
    found = trainer.ours(asked)
    steps = asked["training"]["steps"]
    found |= {"parts": statistics.fmean(parts), "calls": {name: count / steps for name, count in calls.items()}}
    return found | {name: spent / steps for name, spent in seconds.items()}


def two_at_a_time(asked: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Findings by the keys of `asked`; each child has a core of its own."""
    keys, found = list(asked), {}
    for pair in (keys[i : i + 2] for i in range(0, len(keys), 2)):
        running = {key: measure.start(measured, asked[key]) for key in pair}
        found |= {key: child.result() for key, child in running.items()}
    return found


def main() -> None:
    """Measure every scope and write the JSON file."""
    options, began = measure.options(__doc__), time.time()
    rows, shares, passes = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        from rl_step import work
        from trainer import make_tiny

        model = make_tiny(Path(folder), options.quick)
        asked = work(model, options.quick)
        children = {}
        for name, settings in OBJECTIVES.items():
            for way, (scope, policy, parts) in WAYS.items():
                objective = {"name": name, "scope": scope, "policy": policy} | settings
                tokens = 200 if options.quick and parts == 2 else MICRO_BATCHES[parts]
                training = asked["training"] | {"micro_batch_tokens": tokens}
                children[name, way] = asked | {"objective": objective, "training": training}
        found = two_at_a_time(children)
    for (name, way), one in found.items():
        step, old = statistics.median(one["seconds"]), one["phases"]["logprob"]
        # the selection itself is a part of what is done ahead
        ahead = one["ahead"] - one["select"] if one["ahead"] else 0.0
        ahead = ahead if ahead > 0.1 * old else 0.0  # KL-Cov by the old policy reads nothing
        shares.append(one["select"] / step)
        passes += [ahead / old] if ahead else []
        rows.append(
            {
                "objective": name,
                "scope, policy": way,
                "micro-batches": one["parts"],
                "step, s": step,
                "selection, ms": 1000 * one["select"],
                "of a step": f"{one['select'] / step:.2%}",
                "pass ahead, ms": 1000 * ahead or None,
                "calls ahead": one["calls"]["ahead"] or None,
                "old log-probs, ms": 1000 * old,
                "calls for them": one["calls"]["old"],
            }
        )
    goals = [
        Goal("selection, largest share", 100 * max(shares), 1, "% of a step"),
        Goal("pass ahead of an exact selection, times that of the old log-probs", max(passes), 1.2, "x"),
    ]
    measure.write("selection", options.results, began, {"": rows}, goals)


if __name__ == "__main__":
    main()
