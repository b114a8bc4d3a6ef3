"""What a person sees of a run beside Snakemake's own lines: how long it takes, what came out, what to do next.

Light to import, since the Snakefile does; rules/screen.smk connects it with Snakemake.
"""

import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from entropy_mechanism import costs, files
from entropy_mechanism.config import TinyModel
from entropy_mechanism.paths import Paths
from entropy_mechanism.plan import Plan
from entropy_mechanism.shapes import Shape

PRIOR = 60.0
"""Seconds for which the estimate is believed, before jobs that have ended say how fast the machine is."""
TOKENS = 320
"""Of a tiny model's vocabulary, about; torch, which would have to be imported to count them, takes seconds."""
NOISE = re.compile(
    r"Select jobs to execute|Execute \d+ jobs|Using shell: |Assuming unrestricted shared filesystem|"
    r"Rules claiming more threads|Conda environments: ignored|Singularity containers: ignored|"
    r"RuleException:\s+CalledProcessError|WorkflowError:\s+At least one job did not complete"
)
"""What Snakemake says that tells nobody anything, or says twice; its own log keeps it."""
CAME_OUT = "What came out of "
"""Begins the line of the report's log from which on it tells its numbers."""
MOST_NAMED = 3
"""Failed jobs that are told of at the end."""
MOST_FILES = 5
"""Files that are named at the end: those of one figure."""
HARDLY_ANY = 2**20
"""With fewer bytes left on its disk, a log may lack the line that says why its job failed."""


@dataclass(frozen=True)
class Job:
    """A job that failed: its rule and wildcards, and its logs."""

    name: str
    logs: tuple[Path, ...]


@dataclass
class Clock:
    """How long is left, by what jobs were expected to take and by what those that have ended took."""

    expected: Mapping[int, tuple[float, int]]
    """Seconds and cores of each job, by its number."""
    cores: int
    now: Callable[[], float] = time.monotonic
    _started: dict[int, float] = field(default_factory=dict)
    _ended: dict[int, float] = field(default_factory=dict)

    def start(self, job: int) -> None:
        """A job has begun, for the first time or once more."""
        self._started[job] = self.now()

    def end(self, job: int) -> None:
        """A job is done."""
        if job in self._started and job in self.expected:
            self._ended[job] = self.now() - self._started[job]

    def left(self) -> float:
        """Seconds until all jobs are done, if they keep all cores busy; no less than the longest of them."""
        known = PRIOR + sum(self.expected[job][0] for job in self._ended)
        pace = (PRIOR + sum(self._ended.values())) / known
        rest = {job: pace * seconds for job, (seconds, _) in self.expected.items() if job not in self._ended}
        for job in rest.keys() & self._started.keys():
            # One that takes longer than expected may end at any time, or not.
            rest[job] = max(rest[job] - (self.now() - self._started[job]), rest[job] / 10)
        work = sum(seconds * self.expected[job][1] for job, seconds in rest.items())
        return max([work / self.cores, *rest.values()])


def expected(plan: Plan, rule: str, wildcards: Mapping[str, str]) -> float | None:
    """Seconds that a job takes, an estimate (costs.py); None for a download or GPUs, where nobody knows."""
    if rule == "train":
        model = plan.runs[wildcards["run"]].model
    elif rule.startswith("sample"):
        model = plan.policies[wildcards["policy"]].model
    elif rule in ("make_model", "fetch_model"):
        model = wildcards["model"]
    else:
        return costs.SMALL_JOB
    settings = plan.experiment.models[model]
    if not isinstance(settings, TinyModel) or plan.experiment.compute_of(model).device != "cpu":
        return None
    heads = (settings.heads, settings.kv_heads)
    shape = Shape(settings.layers, settings.width, *heads, 4 * settings.width, TOKENS, settings.tied)
    if rule == "train":
        return costs.training(plan, wildcards["run"], shape, partial(_problems, plan)).seconds
    if rule == "make_model":
        return costs.warming_up(settings, shape, costs.MACHINES["cpu"])
    return costs.evaluation(plan, wildcards["policy"], shape, partial(_problems, plan)).seconds


def _problems(plan: Plan, data: str) -> int:
    """Problems of a data set that is generated; 1 of one whose size only its file tells."""
    parts = [plan.experiment.data[part] for part in plan.experiment.parts_of(data)]
    return sum(getattr(part, "problems", 1) for part in parts)


def clock(plan: Plan, jobs: Iterable[tuple[int, str, Mapping[str, str], int]], cores: int) -> Clock | None:
    """A clock for jobs, each its number, rule, wildcards and cores; None when nobody knows how long one takes."""
    known = {}
    for number, rule, wildcards, used in jobs:
        seconds = expected(plan, rule, wildcards)
        if seconds is None:
            return None
        known[number] = (seconds, used)
    return Clock(known, cores)


def duration(seconds: float) -> str:
    """About how long, in words that claim no more than an estimate can: 40 s, 6 min, 1 h 20 min."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(5 * round(minutes / 5), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def beginning(paths: Paths, jobs: int, cores: int | None, left: float | None) -> str:
    """What is said before the first job; `cores` is None on a cluster, `left` where nobody knows."""
    where = "" if cores is None else f" on {cores} core{'s' if cores > 1 else ''}"
    long = "" if left is None else f", about {duration(left)}"
    count = f"{jobs} job{'s' if jobs > 1 else ''}"
    return (
        f"{paths.experiment}: {count}{where}{long}; a log of each is in {paths.root}/logs/<rule>/. "
        "Ctrl-C stops, and the same command goes on from there."
    )


def ending(paths: Paths, made: Iterable[str]) -> str:
    """What is said when all is done: what the report found, where it was asked for, or the files that were."""
    made = list(made)
    if paths.report in made:
        return "\n".join([*headlines(Path(paths.log("report"))), f"Open {paths.report} in a browser."])
    if len(made) <= MOST_FILES:
        return f"Done: {', '.join(made)}"
    return f"Done: {len(made)} files in {os.path.commonpath(made)}"


def headlines(log: Path) -> list[str]:
    """What the report's log says came out; nothing where there is no such log."""
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    first = max((number for number, line in enumerate(lines) if line.startswith(CAME_OUT)), default=len(lines))
    return lines[first:]


def stopping(paths: Paths, failed: Iterable[Job], done: int, total: int) -> str:
    """What is said when a run has failed or was interrupted: why, which log says more, and what to do."""
    failed = list(failed)
    lines = [_failure(job) for job in failed[:MOST_NAMED]]
    if len(failed) > MOST_NAMED:
        lines.append(f"{len(failed) - MOST_NAMED} more jobs failed.")
    state = f"{done} of {total} jobs are done and kept"
    if failed:
        lines.append(f"{state}. When the cause is gone, the same command goes on from there.")
    else:
        lines.append(
            f"Interrupted: {state}, a training that had begun goes on from its last checkpoint. Type the same "
            f"command again; logs are in {paths.root}/logs/<rule>/."
        )
    return "\n".join(lines)


def _failure(job: Job) -> str:
    """Which job failed, the line of its log that says why, and the log."""
    reason = next(filter(None, map(_reason, job.logs)), "")
    logs = f"; its log: {', '.join(map(str, job.logs))}" if job.logs else ""
    return f"Failed: {job.name}{f': {reason}' if reason else ''}{logs}"


def _reason(log: Path) -> str:
    """The last line that begins with `error:`, else that the log's disk has no room, or else the last line."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = list(filter(None, map(str.strip, text.splitlines())))
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if not told and _bytes_left(log) < HARDLY_ANY:
        return files.no_space(log.parent)
    return (told or lines or [""])[-1]


def _bytes_left(path: Path) -> float:
    """On the disk that a path is on; infinity where that cannot be told."""
    try:
        return shutil.disk_usage(files.nearest(path)).free
    except OSError:
        return math.inf
