"""A step of RL on the tiny task: its phases, against TRL's GRPOTrainer, and against the arithmetic floor.

    python benchmarks/rl_step.py

The task is that of the tiny experiment: 32 prompts x 8 responses of at most 24 tokens, 4 updates, a warmed-up
model of 170,000 parameters. Seconds are medians over steps; the trainers take turns.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
from measure import Goal, Row, start
from trainer import NAMES, TRAINERS, make_tiny, ours

NO_CHECKPOINT = 1_000_000
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"


def work(model: Path, quick: bool) -> dict[str, Any]:
    """The step that both trainers do."""
    training = {
        "prompts": 4 if quick else 32,
        "steps": 3 if quick else 18,
        "filter_groups": False,
        "max_batches": 1,
        "validate_every": NO_CHECKPOINT,
        "checkpoint_every": NO_CHECKPOINT,
        "record_tokens_every": 0,
    }
    return {"model": str(model), "training": training, "warm": 1 if quick else 3}


def side_by_side(asked: dict[str, Any]) -> dict[tuple[str, int, int], list[dict[str, Any]]]:
    """Findings by (trainer, threads, how many at once)."""
    found: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for threads, at_once in ((1, 1), (2, 1), (1, 2)):
        for what, train in TRAINERS.items():
            running = [start(train, asked, threads) for _ in range(at_once)]
            found[what, threads, at_once] = [child.result() for child in running]
    return found


def step_seconds(findings: list[dict[str, Any]]) -> float:
    """Median over all steps."""
    return statistics.median(second for one in findings for second in one["seconds"])


def floor_seconds(model: Path, asked: dict[str, Any], finding: dict[str, Any], rate: float) -> float:
    """The arithmetic floor of a step."""
    import floor

    from entropy_mechanism.shapes import from_folder

    training = asked["training"]
    size = floor.Step(
        training["prompts"], training.get("samples", 8), finding["prompt_tokens"], finding["response_tokens"]
    )
    return sum(floor.step_flops(from_folder(model), size).values()) / rate


def main() -> None:
    """Measure and write the JSON file."""
    options, began = measure.options(__doc__), time.time()
    with tempfile.TemporaryDirectory() as folder:
        model = make_tiny(Path(folder), options.quick)
        asked = work(model, options.quick)
        found = side_by_side(asked)
        rates = {threads: measure.rate(64, 2, threads) for threads in (1, 2)}
        compared, floors = compare(found, model, asked, rates)
        phases = phases_of(found)
        own = whole_run(model, options.quick)
        crowded = beside_busy_processes(asked)
    alone, fighting = step_seconds(found["ours", 1, 1]), step_seconds(crowded)
    throughput = {
        what: max(at_once / step_seconds(found[what, threads, at_once]) for threads, at_once in ((2, 1), (1, 2)))
        for what in TRAINERS
    }
    small = {name: share for name, share in own.items() if name not in ("sample", "logprob", "update")}
    tables: dict[str, list[Row]] = {
        "One step of both trainers": compared,
        "Where a step's time goes, one thread, milliseconds": phases,
        "Phases of a whole run of the tiny experiment, with group filter, validation and checkpoints": [
            {"phase": name, "share of time": f"{share:.1%}"} for name, share in own.items()
        ],
        "Beside two processes that keep both cores busy": [
            {"cores": "free", "seconds": alone, "times slower": 1.0},
            {"cores": "busy", "seconds": fighting, "times slower": fighting / alone},
        ],
    }
    goals = [
        Goal("steps per second on two cores, times TRL's", throughput["ours"] / throughput["trl"], 4, "x", True),
        Goal("a step, times its arithmetic floor", alone / floors["ours", 1, 1], 2.5, "x"),
        Goal("largest phase other than sampling, log-probs, updates", 100 * max(small.values()), 5, "% of a step"),
        Goal("logging and checkpoints", 100 * (own["log"] + own["checkpoint"]), 2, "% of a step"),
        Goal("a step on busy cores, times on free ones", fighting / alone, 10, "x"),
    ]
    measure.write("rl_step", options.results, began, tables, goals)


def compare(found: Any, model: Path, asked: Any, rates: dict[int, float]) -> tuple[list[Row], dict[Any, float]]:
    """A row for each way of using two cores, and the floors."""
    rows, floors = [], {}
    for (what, threads, at_once), findings in found.items():
        seconds = step_seconds(findings)
        tokens = statistics.fmean(one["response_tokens"] for one in findings)
        floors[what, threads, at_once] = floor_seconds(model, asked, findings[0], rates[threads])
        rows.append(
            {
                "trainer": NAMES[what],
                "trainings at once": at_once,
                "threads each": threads,
                "seconds a step": seconds,
                "steps a second, machine": at_once / seconds,
                "times the floor": seconds / floors[what, threads, at_once],
                "tokens a response": tokens,
                "entropy": statistics.fmean(one["entropy"] for one in findings),
                "reward": statistics.fmean(one["reward"] for one in findings),
            }
        )
    return rows, floors


def phases_of(found: Any) -> list[Row]:
    """Milliseconds of each phase, both trainers on one thread; TRL's `update` is what is left."""
    rows = []
    for what, name in NAMES.items():
        parts = [one["phases"] for one in found[what, 1, 1]]
        names = ("sample", "grade", "logprob", "update", "log", "rest")
        mean = {phase: 1000 * statistics.fmean(part.get(phase, 0.0) for part in parts) for phase in names}
        rows.append({"trainer": name, **{phase: value or None for phase, value in mean.items()}})
    return rows


def whole_run(model: Path, quick: bool) -> dict[str, float]:
    """Share of time of each phase with the settings of the tiny experiment, from its first checkpoint on."""
    training = {"steps": 4, "checkpoint_every": 2, "validate_every": 2, "prompts": 4} if quick else {"steps": 29}
    found = measure.run(ours, {"model": str(model), "training": training, "warm": 1 if quick else 4})
    whole = statistics.fmean(found["seconds"])
    return {name: seconds / whole for name, seconds in found["phases"].items()}


def beside_busy_processes(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """One training on one thread while two processes keep two cores at work."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
    try:
        return [measure.run(ours, asked)]
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    main()
