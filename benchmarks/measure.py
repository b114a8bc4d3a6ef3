"""What the benchmarks share: measuring in processes of their own, facts of the machine, results as JSON.

What is measured runs in a child, so that its threads, its peak memory and its imports are its own: a script that
takes its settings as one JSON argument and prints its findings as JSON in its last line (`settings`, `reply`).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
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


def start(script: str, settings: dict[str, Any], threads: int = 1) -> subprocess.Popen:
    """Start a script of this folder on a number of threads."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    return subprocess.Popen(
        [sys.executable, REPOSITORY / "benchmarks" / script, json.dumps(settings | {"threads": threads})],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child: subprocess.Popen) -> dict[str, Any]:
    """What a started script found. Raises RuntimeError with its last words when it failed."""
    out, err = child.communicate()
    if child.returncode:
        words = "\n".join(err.strip().splitlines()[-15:])
        raise RuntimeError(f"{' '.join(map(str, child.args))} ended with status {child.returncode}:\n{words}")
    return json.loads(out.strip().splitlines()[-1])


def run(script: str, settings: dict[str, Any], threads: int = 1) -> dict[str, Any]:
    """What a script of this folder finds, alone on the machine."""
    return finish(start(script, settings, threads))


def is_child() -> bool:
    """Whether this process was started by `start`."""
    return len(sys.argv) == 2 and sys.argv[1].startswith("{")


def settings() -> dict[str, Any]:
    """In a child: what it shall do."""
    return json.loads(sys.argv[1])


def reply(found: dict[str, Any]) -> None:
    """In a child: print what was found."""
    print(json.dumps(found), flush=True)


def peak_bytes() -> int:
    """Largest resident memory of this process so far; unlike ru_maxrss, without what its parent had."""
    return _status("VmHWM")


def resident_bytes() -> int:
    """Resident memory of this process."""
    return _status("VmRSS")


def forget_peak() -> None:
    """Let `peak_bytes` begin anew: imports need more for a moment than they keep."""
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
