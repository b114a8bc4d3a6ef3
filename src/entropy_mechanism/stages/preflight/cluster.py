"""What a Slurm cluster says of itself, asked for seconds at most, and whether a job could ever start there.

Slurm's commands hang for long where the controller does not answer; all of this is meant to be asked before.
"""

import contextlib
import math
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 1.5
"""Seconds that a command of Slurm gets."""
PROGRAMS = ("sbatch", "squeue", "scontrol", "scancel", "sinfo")
"""What Snakemake's plugin and these checks run."""
QUESTIONS = {
    "ping": ("scontrol", "ping"),
    "config": ("scontrol", "show", "config"),
    "partitions": ("scontrol", "--oneliner", "--all", "show", "partition"),
    "nodes": ("sinfo", "--noheader", "--all", "--exact", "--format=%R|%D|%c|%m|%G|%T"),
}
"""What a cluster is asked of itself: whether its controller is there, configuration, partitions and nodes."""
LATE = "no answer"
"""In place of what a question would have given, when it was not answered in time."""
_GONE = ("down", "drain", "fail", "error", "unknown", "maint", "inval", "future", "power")
"""Beginnings of the states of nodes on which no job starts; `power…` also wakes up, and `drng` is draining."""


@dataclass(frozen=True)
class Need:
    """What jobs of one kind ask for; cores, memory and GPUs of each node."""

    what: str
    """Which jobs, for a person."""
    rule: str
    """The rule whose resources a site changes."""
    minutes: float
    cores: int
    mem_mb: int
    nodes: int = 1
    gres: str | None = None
    """GPUs as in `--gres`, such as `gpu:a100:8`."""
    partition: str | None = None
    """The partition that is asked for; several may be listed with commas."""

    @property
    def gpus(self) -> dict[str, int]:
        """GPUs by type; of any type, by ''."""
        return gpus_of(self.gres or "")


@dataclass(frozen=True)
class Nodes:
    """Nodes of a partition that are alike."""

    count: int
    cores: int
    mem_mb: int
    gpus: Mapping[str, int]
    state: str

    @property
    def works(self) -> bool:
        """Whether jobs start there now or once others have ended."""
        return not self.state.startswith(_GONE) and not self.state.endswith("*")


@dataclass(frozen=True)
class Partition:
    """A partition, its limits and its nodes."""

    name: str
    default: bool
    state: str
    minutes: float
    """Longest time limit of a job."""
    max_nodes: float
    accounts: frozenset[str] | None
    """Accounts that may use it; None means all."""
    qos: frozenset[str] | None
    nodes: tuple[Nodes, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """What Slurm's commands said."""

    ping: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    partitions: Mapping[str, Partition] = field(default_factory=dict)
    unread: str = ""
    """Why partitions or configuration are not known, if they are not."""

    @property
    def answers(self) -> bool:
        """Whether a controller is up."""
        return "is UP" in self.ping

    @property
    def accounts_kept(self) -> bool:
        """Whether jobs that have ended are kept in a database that sacct asks."""
        return self.config.get("AccountingStorageType", "(null)") not in ("accounting_storage/none", "(null)")

    @property
    def min_job_age(self) -> float:
        """Seconds for which squeue still knows a job that has ended."""
        found = re.match(r"\d+", self.config.get("MinJobAge", ""))
        return float(found[0]) if found else math.inf

    def asked(self, need: Need) -> list[Partition]:
        """The partitions that a job may go to; none where a name is wrong or there is no default."""
        names = need.partition.split(",") if need.partition else [
            name for name, one in self.partitions.items() if one.default
        ]  # fmt: skip
        return [self.partitions[name] for name in names if name in self.partitions]


def together(questions: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, Any]:
    """Ask all at once; `LATE` for what does not answer in time, the error for what raises one.

    Nothing waits for a question that hangs, as one about a dead network file system does, not even the program's
    end: its thread is left behind.
    """
    answers: dict[str, Any] = {}

    def ask(name: str, question: Callable[[], Any]) -> None:
        try:
            answers[name] = question()
        except Exception as error:
            answers[name] = error

    threads = [threading.Thread(target=ask, args=pair, daemon=True) for pair in questions.items()]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    found = dict(answers)
    return {name: found.get(name, LATE) for name in questions}


def said(*command: str) -> tuple[bool, str]:
    """Whether a command succeeded, and what it said: its output, or else the last line of its errors."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return False, LATE
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        return False, lines[-1] if lines else f"exit status {done.returncode}"
    return True, done.stdout


def reply(answer: Any) -> tuple[bool, str]:
    """What `said` gave or, where a question ended otherwise, that it failed and why."""
    return answer if isinstance(answer, tuple) else (False, str(answer))


def described(replies: Mapping[str, tuple[bool, str]]) -> Cluster:
    """The cluster of what `QUESTIONS` were answered with: whether each succeeded, and its text."""
    ping = replies["ping"][1]
    for name, (good, text) in replies.items():
        if not good and name != "ping":
            return Cluster(ping, unread=f"`{' '.join(QUESTIONS[name])}`: {text}")
    return Cluster(ping, _config(replies["config"][1]), _partitions(replies["partitions"][1], replies["nodes"][1]))


def obstacles(need: Need, partition: Partition) -> list[tuple[str, str]]:
    """Why jobs would never start in a partition: pairs of what is asked for and found, and the cure."""
    found = []

    def lacking(text: str, key: str, value: object, *others: str) -> None:
        place = (
            f"set-resources: {{{need.rule}: {{{key}: {value}}}}}" if need.rule else f"{key} of default-resources"
        )
        cure = ", or ".join((f"{place} in the site's file", *others, "another slurm_partition"))
        found.append((f"{need.what}: {text}", cure))

    there = f"and partition {partition.name} allows"
    if need.minutes > partition.minutes:
        limit = int(partition.minutes)
        lacking(f"time limit {need.minutes:g} min, {there} {limit}", "runtime", limit)
    if need.nodes > partition.max_nodes:
        lacking(f"{need.nodes} nodes, {there} {partition.max_nodes:g}", "nodes", "…", "fewer compute.nodes")
    there = f"and no node of partition {partition.name} has more than"
    for kind, count in need.gpus.items():
        most = max((_gpus(group, kind) for group in partition.nodes), default=0)
        if most < count:
            kinds = names({name or "gpu" for group in partition.nodes for name in group.gpus})
            text = f"{count} GPUs {f'of type {kind} ' if kind else ''}on a node, {there} {most}"
            lacking(f"{text} (types there: {kinds})", "gres", "…",
                    "gpu_type in config/config.yaml as `sinfo -o %G` shows it", "more compute.nodes")  # fmt: skip
    for value, attribute, unit, key in (
        (need.cores, "cores", "cores", "cpus_per_task"),
        (need.mem_mb, "mem_mb", "MB", "mem_mb"),
    ):
        most = max((getattr(group, attribute) for group in partition.nodes), default=0)
        if value > most:
            lacking(f"{value} {unit} on a node, {there} {most}", key, "…", "more compute.nodes")
    fit = sum(group.count for group in partition.nodes if _fits(need, group))
    if not found and fit < need.nodes:
        text = f"{need.cores} cores, {need.mem_mb} MB and {need.gres or 'no GPUs'} on each of {need.nodes} nodes"
        lacking(f"{text}, and partition {partition.name} has {fit} such", "nodes", "…", "other compute.nodes")
    return found


def resting(need: Need, partition: Partition) -> bool:
    """Whether too few of the nodes that fit are at work now, so that jobs wait for others to come back."""
    fit = [group for group in partition.nodes if _fits(need, group)]
    return sum(group.count for group in fit if group.works) < need.nodes <= sum(group.count for group in fit)


def gpus_of(gres: str) -> dict[str, int]:
    """GPUs by type from Slurm's notation, such as `gpu:a100:8(S:0-1),gpu:2` or `(null)`; without a type, by ''."""
    found: dict[str, int] = {}
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = part.strip().split(":")
        if name in ("gpu", "gres/gpu"):
            *kind, count = rest or ["1"]
            if not count.isdigit():  # gpu:a100 asks for one
                kind, count = [count], "1"
            key = kind[0] if kind else ""
            found[key] = found.get(key, 0) + int(count)
    return found


def minutes_of(text: str) -> float:
    """Minutes from Slurm's notation: `1-12:00:00`, `04:30:00`, `30:00`, `90`, `UNLIMITED`."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in (*parts, days or "0")):
        return math.inf  # UNLIMITED, INFINITE, NONE
    numbers = [int(part) for part in parts]
    if days:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, (*numbers, 0)[:2]
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def _gpus(group: Nodes, kind: str) -> int:
    return group.gpus.get(kind, 0) if kind else sum(group.gpus.values())


def _fits(need: Need, group: Nodes) -> bool:
    enough = group.cores >= need.cores and group.mem_mb >= need.mem_mb
    return enough and all(_gpus(group, kind) >= count for kind, count in need.gpus.items())


def _config(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _partitions(described: str, nodes: str) -> dict[str, Partition]:
    groups: dict[str, list[Nodes]] = {}
    for line in nodes.splitlines():
        name, count, cores, memory, gres, state = line.split("|")
        with contextlib.suppress(ValueError):
            groups.setdefault(name, []).append(
                Nodes(int(count), _number(cores), _number(memory), gpus_of(gres), state.lower())
            )
    found = {}
    for line in described.splitlines():
        values = dict(part.split("=", 1) for part in line.split() if "=" in part)
        if partition := values.get("PartitionName"):
            found[partition] = Partition(
                partition,
                values.get("Default") == "YES",
                values.get("State", "UP"),
                minutes_of(values.get("MaxTime", "UNLIMITED")),
                float(values["MaxNodes"]) if values.get("MaxNodes", "").isdigit() else math.inf,
                _allowed(values.get("AllowAccounts", "ALL")),
                _allowed(values.get("AllowQos", "ALL")),
                tuple(groups.get(partition, ())),
            )
    return found


def _allowed(names: str) -> frozenset[str] | None:
    return None if names == "ALL" else frozenset(names.split(","))


def _number(text: str) -> int:
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else 0


def names(values: Iterable[str]) -> str:
    """A list for a person; `none` when it is empty."""
    return ", ".join(sorted(values)) or "none"
