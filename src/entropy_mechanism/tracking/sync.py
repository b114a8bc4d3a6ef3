"""Sending local records to MLflow: every record, point and file up to a size once, however often it is repeated.

What the server accepted is noted in `results/records/mlflow.json`, every second and at the end of a pass. A
sender that dies before noting repeats what it sent, which adds nothing: a run is found again by its tag
`record_id`, parameters and tags are equal, and the store knows a metric point by run, name, step, time and
value, where the time is the one written in the series and never that of sending.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from entropy_mechanism.credentials import check_address, without_credentials
from entropy_mechanism.files import read_json, write_text
from entropy_mechanism.tracking import artifacts
from entropy_mechanism.tracking.entries import batches, params_of, tags_of
from entropy_mechanism.tracking.invocations import Invocation, read_invocations, settle_invocation
from entropy_mechanism.tracking.provenance import vanished
from entropy_mechanism.tracking.records import (
    FINISHED,
    KILLED,
    RUNNING,
    File,
    Record,
    read_record,
    record_paths,
    write_record,
)

EXPERIMENT = "entropy-mechanism"
NO_LAST_WORD = "the process ended without a last word: SIGKILL, out of memory, a full disk or power loss"


@dataclasses.dataclass(frozen=True)
class SyncResult:
    """What one pass sent (`sent` counts records new or changed) and how many records are still to be sent."""

    sent: int = 0
    points: int = 0
    artifacts: int = 0
    pending: int = 0
    error: str | None = None

    def __str__(self) -> str:
        sent = f"{self.sent} records sent ({self.points} points, {self.artifacts} files)"
        line = f"{sent}, {self.pending} pending"
        return line if self.error is None else f"{line}: {self.error}"


def default_tracking_uri(results: Path | str) -> str:
    """The SQLite store inside the results folder."""
    return f"sqlite:///{os.path.abspath(results)}/mlflow.db"


def run_ids(results: Path | str) -> dict[str, tuple[str, str]]:
    """MLflow (experiment id, run id) of every record sent so far, by record id."""
    state = _read_state(Path(results))
    return {name: (state["experiment_id"], entry["run_id"]) for name, entry in state["records"].items()}


def sync(
    results: Path | str,
    tracking_uri: str | None = None,
    experiment: str = EXPERIMENT,
    *,
    resend: bool = False,
    wait: float = 120.0,
) -> SyncResult:
    """Send everything that is new or changed, in one pass; never raises for a server that cannot be used.

    `resend` forgets what was noted as sent and offers everything again, for a store restored from an old
    copy. Waits up to `wait` seconds for another process that is sending.
    """
    sender = Sender(results, tracking_uri, experiment, resend=resend)
    return sender.sync(wait=wait)


class Sender:
    """Sends the records of one results folder; keeps its connection between passes."""

    def __init__(
        self,
        results: Path | str,
        tracking_uri: str | None = None,
        experiment: str = EXPERIMENT,
        *,
        resend: bool = False,
    ):
        """Raises ValueError for an address with credentials in it."""
        self.results = Path(os.path.abspath(results))
        self.uri = check_address(tracking_uri) if tracking_uri else default_tracking_uri(results)
        self.experiment = experiment
        self._resend = resend
        self._limit = artifacts.artifact_limit()
        self._fresh: set[str] = set()
        self._client: Any = None
        self._state: dict[str, Any] = {}
        self._owners: dict[File, str] = {}
        self._stamps: dict[tuple[str, str], tuple[int, int]] = {}
        self._seen: dict[Path, tuple[int, Record]] = {}
        self._digests: dict[tuple[str, str], tuple[Record | Invocation, str]] = {}
        self._written = ""
        self._saved = 0.0
        self._counts = {"sent": 0, "points": 0, "artifacts": 0}

    def sync(self, wait: float = 120.0) -> SyncResult:
        """One pass over all records, alone: no other process sends from this results folder meanwhile."""
        self._counts = dict.fromkeys(self._counts, 0)
        error: str | None = None
        total, done = 0, 0
        if not (self.results / "records").is_dir():
            return SyncResult(error=f"{self.results}: no folder 'records', so nothing was recorded here")
        try:
            with locked(self.results, wait):
                items, broken = self._read()
                self._state = _read_state(self.results)
                self._written = json.dumps(self._state, indent=1)
                total = len(broken) + sum(not self._is_sent(item) for item in items)
                self._connect()
                total, error = len(items) + len(broken), next(iter(broken), None)
                try:
                    for item in items:
                        problem = self._try_to_send(item)
                        done, error = done + (problem is None), error or problem
                finally:
                    self._save()
        except Exception as problem:  # whatever MLflow raises, the science goes on and the records remain
            error = artifacts.one_line(problem)
        return SyncResult(**self._counts, pending=total - done, error=error)

    def pending(self) -> int:
        """Records and invocations noted here as not, or not completely, sent; asks no server."""
        items, broken = self._read()
        self._state = _read_state(self.results)
        return len(broken) + sum(not self._is_sent(item) for item in items)

    def _read(self) -> tuple[list[Record | Invocation], list[str]]:
        """Invocations and records (KILLED where the process is gone without a last word); unreadable files."""
        records, broken = [], []
        for path in record_paths(self.results):
            try:
                stamp, known = path.stat().st_mtime_ns, self._seen.get(path)
                if known is None or known[0] != stamp or known[1].status == RUNNING:
                    known = self._seen[path] = stamp, _settle(path)
                records.append(known[1])
            except ValueError as problem:
                broken.append(str(problem))
        invocations = [settle_invocation(item, self.results) for item in read_invocations(self.results)]
        noted = {item.invocation for item in invocations}
        named = {record.invocation for record in records if record.invocation is not None}
        for name in sorted(named - noted):
            started = min(record.started for record in records if record.invocation == name)
            invocations.append(Invocation(name, FINISHED, started, started))
        # A resumed stage continues the series of the attempt before it: only its run gets further points.
        self._owners = {file: record.record_id for record in records for file in record.series}
        return [*invocations, *records], broken

    def _connect(self) -> None:
        """Open the store and find the experiment."""
        if self._client is None:
            database = self.results / "mlflow.db"
            if self.uri == default_tracking_uri(self.results) and not database.exists():
                artifacts.create_store(database)
            self._client = artifacts.connect(self.uri)
        client = self._client
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            local = (self.results / "mlartifacts").as_uri() if self.uri.startswith("sqlite:") else None
            found = client.get_experiment(client.create_experiment(self.experiment, artifact_location=local))
        if artifacts.follow_move(self.uri, self.results, found):
            found = client.get_experiment_by_name(self.experiment)
        if found.lifecycle_stage != "active":
            raise RuntimeError(f"MLflow experiment {self.experiment!r} is deleted; restore or rename it")
        store = store_identity(found)
        if self._resend or any(self._state.get(name) != value for name, value in store.items()):
            # Another store, or the same one made anew: nothing there was sent yet.
            self._state, self._resend = {**_empty(), **store}, False
        self._state["tracking_uri"] = without_credentials(self.uri)

    def _is_sent(self, item: Record | Invocation) -> bool:
        kind, name = _name(item)
        entry = self._state[kind].get(name, {})
        if entry.get("left_out") is not None and entry["left_out"] <= self._limit:
            return False  # what was too large is no longer
        return entry.get("digest") == self._digest(item) and entry.get("complete", False)

    def _digest(self, item: Record | Invocation) -> str:
        """`digest_of`, once as long as an item is the same: a follower asks for all of them every few seconds."""
        known = self._digests.get(_name(item))
        if known is None or known[0] is not item:
            known = self._digests[_name(item)] = item, digest_of(item)
        return known[1]

    def _try_to_send(self, item: Record | Invocation) -> str | None:
        """Send one item; a complaint of the server about this item is returned, any other error raised."""
        from mlflow.exceptions import MlflowException

        try:
            if isinstance(item, Record):
                self._send_record(item)
            else:
                self._send_invocation(item)
        except MlflowException as error:
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE"):
                raise
            return f"{' '.join(_name(item))}: {artifacts.one_line(error)}"
        if time.monotonic() - self._saved > 1:
            self._save()
        return None

    def _save(self) -> None:
        text = json.dumps(self._state, indent=1)
        if text != self._written:
            write_text(_state_path(self.results), text + "\n")
            self._written = text
        self._saved = time.monotonic()

    def _run(self, kind: str, name: str, started: str, title: str, tags: Mapping[str, str]) -> str:
        """Run id of a record or invocation: as noted, else as found by its tag, else of a new run."""
        entry = self._state[kind].setdefault(name, {})
        if "run_id" not in entry:
            tag = "record_id" if kind == "records" else "invocation_id"
            where = self._state["experiment_id"]
            found = self._client.search_runs([where], f"tags.{tag} = '{name}'", max_results=1)
            if not found:
                tags = {tag: name, **tags}
                found = [self._client.create_run(where, _milliseconds(started), tags, title)]
                self._fresh.add(name)
            entry["run_id"] = found[0].info.run_id
        return entry["run_id"]

    def _send_invocation(self, item: Invocation) -> None:
        run = self._run("invocations", item.invocation, item.started, item.invocation, {})
        entry = self._state["invocations"][item.invocation]
        if entry.get("digest") == digest_of(item):
            return
        tags = {"command": " ".join(item.command), "git_revision": str(item.git.get("revision"))}
        self._log_entries(run, {}, tags)
        if item.status != RUNNING:
            self._client.log_dict(run, dataclasses.asdict(item), artifacts.INVOCATION)
        self._end(run, item.status, item.ended)
        entry.update(digest=digest_of(item), complete=item.status != RUNNING)
        self._counts["sent"] += 1

    def _send_record(self, record: Record) -> None:
        if self._is_sent(record):
            return
        tags = {"stage": record.stage, "key": record.key}
        if record.invocation:
            tags["mlflow.parentRunId"] = self._state["invocations"][record.invocation]["run_id"]
        run = self._run("records", record.record_id, record.started, f"{record.stage} {record.key}", tags)
        entry = self._state["records"][record.record_id]
        if changed := entry.get("digest") != self._digest(record):
            self._log_entries(run, params_of(record.params), {**tags, **tags_of(record)})
        for file in record.series:
            if self._owners[file] == record.record_id:
                self._send_series(run, record, file)
        if record.status != RUNNING:
            fresh = record.record_id in self._fresh
            self._fresh.discard(record.record_id)  # whatever happens now, another attempt looks what is there
            count, left = artifacts.send(self._client, run, record, self.results, self._limit, fresh=fresh)
            self._counts["artifacts"] += count
            entry["left_out"] = left
            self._end(run, record.status, record.ended)
        entry.update(digest=digest_of(record), complete=record.status != RUNNING)
        self._counts["sent"] += changed

    def _log_entries(self, run: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        # The client splits these into requests of 100, the most a server takes.
        self._client.log_batch(
            run,
            params=[Param(*item) for item in params.items()],
            tags=[RunTag(*item) for item in tags.items()],
        )

    def _send_series(self, run: str, record: Record, file: File) -> None:
        """Send the lines after the last one noted as sent."""
        path, place = file.locate(self.results), (record.record_id, f"{file.base}:{file.path}")
        sent = self._state["records"][record.record_id].setdefault("lines", {})
        stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
        if stamp == self._stamps.get(place) and record.status == RUNNING:
            return
        start = sent.get(place[1], 0)
        for line, points in batches(path, start, _milliseconds(record.started), record.status != RUNNING):
            if points:
                self._client.log_batch(run, metrics=points)
            sent[place[1]] = line
            self._counts["points"] += len(points)
        self._stamps[place] = stamp

    def _end(self, run: str, status: str, ended: str | None) -> None:
        if status != RUNNING:
            self._client.set_terminated(run, status, _milliseconds(ended) if ended else None)


def _settle(path: Path) -> Record:
    """Read a record; one that claims to run although its process on this host is gone becomes KILLED."""
    record = read_record(path)
    if record.status != RUNNING or not vanished(record.process):
        return record
    record = read_record(path)  # its last word may have come between reading and looking for the process
    if record.status != RUNNING:
        return record
    seen = [file for file in (path, path.with_suffix(".metrics.jsonl")) if file.is_file()]
    last = datetime.fromtimestamp(max(file.stat().st_mtime for file in seen), UTC)
    record = dataclasses.replace(record, status=KILLED, ended=last.isoformat(), error=NO_LAST_WORD)
    with contextlib.suppress(OSError):
        write_record(path, record)
    return record


@contextlib.contextmanager
def locked(results: Path, wait: float) -> Iterator[None]:
    """Be the only one that sends from this results folder or restores into it.

    Raises TimeoutError after `wait` seconds.
    """
    path = results / "records" / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    with path.open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path}: another process has been sending for {wait:.0f} s") from None
                time.sleep(0.1)
            except OSError as error:  # a file system without locks
                print(f"warning: {path}: {error}; run one sender at a time", file=sys.stderr)
                break
        yield


def store_identity(experiment: Any) -> dict[str, Any]:
    """What tells a store's MLflow experiment from one of the same name elsewhere, or made anew."""
    return {
        "experiment": experiment.name,
        "experiment_id": experiment.experiment_id,
        "created": experiment.creation_time,
    }


def note_sent(results: Path, experiment: Any, uri: str, runs: Iterable[tuple[Record | Invocation, str]]) -> None:
    """Note items that came from a store, with their runs, as sent there, unless another store is noted."""
    state, store = _read_state(results), store_identity(experiment)
    if state["experiment_id"] is None:
        state |= {**store, "tracking_uri": without_credentials(uri)}
    if any(state.get(name) != value for name, value in store.items()):
        return
    for item, run in runs:
        kind, name = _name(item)
        state[kind].setdefault(name, {"run_id": run, "digest": digest_of(item), "complete": True})
    write_text(_state_path(results), json.dumps(state, indent=1) + "\n")


def _name(item: Record | Invocation) -> tuple[str, str]:
    if isinstance(item, Record):
        return "records", item.record_id
    return "invocations", item.invocation


def _state_path(results: Path) -> Path:
    return results / "records" / "mlflow.json"


def _read_state(results: Path) -> dict[str, Any]:
    """What was sent; nothing when the note is missing or damaged, since sending again is harmless."""
    try:
        state = read_json(_state_path(results))
        return state if {"records", "invocations", "experiment_id"} <= set(state) else _empty()
    except (OSError, ValueError, TypeError):
        return _empty()


def _empty() -> dict[str, Any]:
    return {"experiment_id": None, "records": {}, "invocations": {}}


def digest_of(item: Record | Invocation) -> str:
    """Sixteen digits of what is sent of an item: what was noted with them needs no sending."""
    text = json.dumps(dataclasses.asdict(item), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _milliseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
