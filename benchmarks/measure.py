"""What the benchmarks share: measuring in processes of their own, facts of the machine, results as JSON.

What is measured runs in a child, so that its threads and its peak memory are its own: a function that takes what
is asked of it as a dict and returns what it found. Children are forked from a process that has imported torch and
both trainers, or half of the time would go into imports.
"""

import argparse
import functools
import io
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks/results"
PACKAGES = ("torch", "transformers", "trl", "liger-kernel", "numpy", "scipy", "snakemake", "mlflow")
SHARED = "ENTROPY_MECHANISM_BENCHMARKS"
"""Variable of the environment: a folder for what several topics need, in `make bench`."""
IMPORTED = (
    "torch",
    "transformers.models.qwen2.modeling_qwen2",
    "trl.trainer.grpo_trainer",
    "entropy_mechanism.plan",
    "entropy_mechanism.rl.loop",
    "entropy_mechanism.rollouts.transformers_engine",
    "entropy_mechanism.stages.runtime",
    "entropy_mechanism.stages.training",
)
"""What children need and their parent has imported; whatever is missing here they import themselves."""
Row = dict[str, str | float | int | bool | None]


@dataclass(frozen=True)
class Goal:
    """A goal of docs/performance.md and what was measured."""

    goal: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False
    """Whether the limit is the least, and not the most, that is wanted."""

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def options(text: str) -> argparse.Namespace:
    """The options of every benchmark."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smallest sizes: shows that it works, and no speed")
    parser.add_argument("--results", type=Path, help="folder of the JSON file (default: benchmarks/results)")
    chosen = parser.parse_args()
    if chosen.quick and chosen.results is None:
        parser.error("--quick measures no speed, so it does not go to benchmarks/results; give --results FOLDER")
    chosen.results = chosen.results or RESULTS
    return chosen


@dataclass(frozen=True)
class Child:
    """A function that works in a process of its own."""

    name: str
    process: Any
    answer: Any
    """End of a pipe, on which (found, what went wrong) arrives."""

    def result(self) -> dict[str, Any]:
        """What it found, once its process has ended. Raises RuntimeError with its traceback when it failed."""
        try:
            found, wrong = self.answer.recv()
        except EOFError:
            found = wrong = None
        self.process.join()
        if found is None:
            raise RuntimeError(f"{self.name} failed (status {self.process.exitcode})\n{wrong or ''}")
        return found


def start(function: Callable[[dict[str, Any]], dict[str, Any]], asked: dict[str, Any], threads: int = 1) -> Child:
    """Call a function with what is asked of it, in a process and on a number of threads of its own."""
    context = _with_imports_done()
    answer, to_answer = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(to_answer, function, asked, threads))
    process.start()
    to_answer.close()
    return Child(function.__name__, process, answer)


def run(function: Callable[[dict[str, Any]], dict[str, Any]], asked: dict[str, Any], threads: int = 1) -> Any:
    """What a function finds, alone on the machine."""
    return start(function, asked, threads).result()


def rate(width: int, seconds: float, threads: int = 1, device: str = "cpu", dtype: str = "float32") -> float:
    """The machine's matrix rate at a width (`floor.matrix_rate`)."""
    asked = {"width": width, "seconds": seconds, "device": device, "dtype": dtype}
    return run(_rate, asked, threads)["rate"]


def _rate(asked: dict[str, Any]) -> dict[str, Any]:
    from floor import matrix_rate

    return {"rate": matrix_rate(**asked)}


@functools.cache
def _with_imports_done() -> Any:
    """The multiprocessing context whose processes are forked from one that has imported IMPORTED.

    Sets this process's environment for them, too.
    """
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


def _work(answer: Any, function: Callable[..., Any], asked: dict[str, Any], threads: int) -> None:
    sys.stdout = sys.stderr = io.StringIO()  # with a terminal, a progress bar would be drawn in every step
    import torch

    torch.set_num_threads(threads)
    try:
        answer.send((function(asked), None))
    except Exception:
        answer.send((None, traceback.format_exc()))


def peak_bytes() -> int:
    """Largest resident memory of this process so far, or since `forget_peak`."""
    return _status("VmHWM")


def resident_bytes() -> int:
    """Resident memory of this process."""
    return _status("VmRSS")


def forget_peak() -> None:
    """Let `peak_bytes` begin anew: loading weights needs more for a moment than they keep."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> int:
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) * 1024


def wall_seconds(command: Sequence[str | Path], times: int = 1, limit: float | None = None) -> float:
    """Median wall time of a command, run in the repository; `limit` when it was stopped there.

    Raises RuntimeError when the command fails.
    """
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        try:
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return limit
        taken.append(time.perf_counter() - began)
        if done.returncode:
            words = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
            raise RuntimeError(f"{' '.join(map(str, command))} ended with status {done.returncode}:\n{words}")
    return statistics.median(taken)


def machine() -> dict[str, Any]:
    """Processor, cores, memory and GPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())["MemTotal"]
    try:
        names = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        gpu = subprocess.run(names, capture_output=True, text=True).stdout.strip() or None
    except FileNotFoundError:
        gpu = None
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.split()[0]) / 2**20, 1),
        "gpu": gpu,
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Of Python, of the packages that matter, and of this repository."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    commit = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    found["commit"] = subprocess.run(commit, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
    return found


def write(
    topic: str, folder: Path, began: float, tables: dict[str, list[Row]], goals: Sequence[Goal] = ()
) -> None:
    """Write `<folder>/<topic>.json`: where and when, the tables by title, and goals; `began` is of `time.time`."""
    found = {
        "topic": topic,
        "date": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - began, 1),
        "machine": machine(),
        "versions": versions(),
        "tables": tables,
        "goals": [asdict(goal) | {"met": goal.met} for goal in goals],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{topic}.json").write_text(json.dumps(found, indent=1) + "\n")
