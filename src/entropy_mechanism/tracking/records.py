"""Local records: what each executed stage read, wrote and measured, kept as plain files beside the results.

A stage never talks to a tracking server. It writes `results/records/<stage>/<id>.json` when it starts and
again when it ends, and appends its metrics to `<id>.metrics.jsonl`; `sync.py` sends both to MLflow later.
This module imports the standard library only, since every stage pays for it.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import secrets
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from entropy_mechanism.credentials import without_credentials
from entropy_mechanism.files import append_line, sha256, sha256_of_tree, write_text
from entropy_mechanism.tracking.provenance import environment, git_state, process_identity

SCHEMA = 1
INVOCATION_VARIABLE = "ENTROPY_MECHANISM_INVOCATION"
RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"
# SIGINT, SIGTERM, and 75: a training that saved its state before its deadline asks for another attempt
STOPPED_EXITS = (75, 128 + signal.SIGINT, 128 + signal.SIGTERM)
SNAKEMAKE_MARKER = ".snakemake_timestamp"  # put into directory() outputs after the stage has recorded them

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class File:
    """One file or folder as a stage saw it.

    `path` is relative to the results folder (`base` "results") or to the working directory ("cwd"). The
    digest of a folder is the sha256 of the lines `<sha256>  <path>` of its files in the order of their paths,
    which `tree` keeps, so that a later difference can be named. `sha256` is empty where only the place of a
    file is recorded.
    """

    path: str
    base: Literal["results", "cwd"]
    sha256: str = ""
    size: int = 0
    tree: dict[str, str] | None = None

    def locate(self, results: Path | str) -> Path:
        """Absolute path of the file on this machine."""
        root = Path(results) if self.base == "results" else Path.cwd()
        return Path(os.path.abspath(root / self.path))


@dataclasses.dataclass(frozen=True)
class Record:
    """One execution of one stage. `process` (host, pid, birth) tells whether its writer still lives."""

    record_id: str
    stage: str
    key: str
    status: str
    started: str
    ended: str | None
    seconds: float | None
    error: str | None
    traceback: str | None
    invocation: str | None
    params: dict[str, Any]
    inputs: tuple[File, ...]
    declared: tuple[File, ...]
    outputs: tuple[File, ...]
    artifacts: tuple[File, ...]
    series: tuple[File, ...]
    environment: dict[str, Any]
    git: dict[str, Any]
    command: tuple[str, ...]
    process: dict[str, Any]
    schema: int = SCHEMA


_FILE_FIELDS = ("inputs", "declared", "outputs", "artifacts", "series")


def now() -> str:
    """Current UTC time in ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def place(path: Path | str, results: Path | str) -> File:
    """Where `path` is, relative to the results folder when below it, else to the working directory."""
    absolute, root = os.path.abspath(path), os.path.abspath(results)
    if absolute.startswith(root + os.sep):
        return File(Path(os.path.relpath(absolute, root)).as_posix(), "results")
    return File(Path(os.path.relpath(absolute)).as_posix(), "cwd")


def describe(path: Path | str, results: Path | str, digests: Mapping[str, str] | None = None) -> File:
    """Place, size and digest of a file or folder. Raises FileNotFoundError when there is neither.

    `digests` of a folder's files by their paths in it, where they are known: large weights are read only once.
    """
    path, where = Path(path), place(path, results)
    if not path.is_dir():
        return dataclasses.replace(where, sha256=sha256(path), size=path.stat().st_size)
    tree = {
        name: digest
        for name, digest in (sha256_of_tree(path) if digests is None else dict(sorted(digests.items()))).items()
        if name.rsplit("/", 1)[-1] != SNAKEMAKE_MARKER
    }
    lines = "".join(f"{digest}  {name}\n" for name, digest in tree.items())
    size = sum((path / name).stat().st_size for name in tree)
    return dataclasses.replace(where, sha256=hashlib.sha256(lines.encode()).hexdigest(), size=size, tree=tree)


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: paths and unknown objects become text, NaN and infinities their names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if hasattr(value, "tolist"):  # numpy and torch
        return plain(value.tolist())
    return str(value)


def write_record(path: Path, record: Record) -> None:
    """Write a record in one step, with credentials inside addresses removed."""
    value = dataclasses.asdict(record)
    write_text(path, without_credentials(json.dumps(plain(value), indent=1, ensure_ascii=False)) + "\n")


def read_record(path: Path | str) -> Record:
    """Read one record. Raises ValueError naming the file when it is not one."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        for name in _FILE_FIELDS:
            value[name] = tuple(File(**item) for item in value[name])
        return Record(**{**value, "command": tuple(value["command"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not a stage record ({error}); restore or delete this file") from None


def record_paths(results: Path | str) -> list[Path]:
    """Every record file below `results/records`, oldest first."""
    found = (Path(results) / "records").glob("*/*.json")
    # Names that begin with a dot are files in the middle of being written.
    return sorted((path for path in found if not path.name.startswith(".")), key=lambda path: path.name)


def require_records(results: Path) -> None:
    """Raises FileNotFoundError for a results folder without records."""
    if not (results / "records").is_dir():
        raise FileNotFoundError(f"--results: {results} has no folder 'records', so nothing was recorded there")


def latest_records(results: Path | str, stage: str | None = None) -> list[Record]:
    """The last execution of each (stage, key), ordered by stage and key; of one stage when it is named."""
    latest: dict[tuple[str, str], Record] = {}
    for path in record_paths(results):
        if stage is None or path.parent.name == stage:
            record = read_record(path)
            latest[record.stage, record.key] = record
    return [latest[name] for name in sorted(latest)]


class StageRecord:
    """The record of the running stage: the handle that `stage` yields. Use its methods, not its fields."""

    def __init__(self, path: Path, record: Record, results: Path, outputs: Iterable[Path | str]):
        self.path = path
        self.results = results
        self._record = record
        self._outputs = list(outputs)
        self._artifacts: dict[Path, Mapping[str, str] | None] = {}
        self._series = path.with_name(f"{record.record_id}.metrics.jsonl")

    @property
    def record_id(self) -> str:
        """Name of this execution, also a tag of its MLflow run."""
        return self._record.record_id

    @property
    def provenance(self) -> dict[str, Any]:
        """What this execution is made from and where it runs, for what it leaves outside the results folder."""
        names = ("record_id", "stage", "key", "params", "inputs", "environment", "git")
        return {"published": now()} | {name: plain(getattr(self._record, name)) for name in names}

    def metric(self, name: str, value: float | None, step: int | None = None) -> None:
        """Append one point. None, NaN and infinities are kept as null and sent nowhere."""
        self.metrics({name: value}, step)

    def metrics(self, values: Mapping[str, float | None], step: int | None = None) -> None:
        """Append points of one step (0 when not given). Raises ValueError for the reserved names."""
        line: dict[str, Any] = {"step": 0 if step is None else int(step), "time": round(time.time(), 3)}
        for name, value in values.items():
            if name in line:
                raise ValueError(f"metric name {name!r} is reserved: 'step' and 'time' describe the point")
            number = math.nan if value is None else float(value)
            line[name] = number if math.isfinite(number) else None
        with self._series.open("ab", buffering=0) as handle:
            append_line(handle, json.dumps(line).encode() + b"\n")
        self._use_series(self._series)

    def param(self, name: str, value: Any) -> None:
        """Add a parameter that is known only while the stage runs."""
        self._update(params={**self._record.params, name: plain(value)})

    def artifact(self, path: Path | str, digests: Mapping[str, str] | None = None) -> None:
        """Name an extra file or folder that is recorded and copied to MLflow like an output, but not audited.

        `digests` as in `describe`.
        """
        self._artifacts[Path(path)] = digests

    def found(self, path: Path | str, digests: Mapping[str, str] | None = None) -> None:
        """Name what this execution found done: an input, and an artifact too where nobody has recorded it.

        The latter after an execution that was killed when it had made it, before it could record it.
        """
        self.inputs_also(path, digests)
        if not self._is_recorded(self._record.inputs[-1]):
            self.artifact(path, digests)

    def _is_recorded(self, file: File) -> bool:
        """Whether a finished execution of this stage has left the file with this content."""
        for path in self.path.parent.glob("[!.]*.json"):
            if file.sha256 in path.read_text(encoding="utf-8"):
                record = read_record(path)
                if record.status == FINISHED and file in (*record.outputs, *record.artifacts):
                    return True
        return False

    def inputs_also(self, path: Path | str, digests: Mapping[str, str] | None = None) -> None:
        """Name one more input, known only while the stage runs; `digests` as in `describe`."""
        self._update(inputs=(*self._record.inputs, describe(path, self.results, digests)))

    def outputs_also(self, path: Path | str) -> None:
        """Name one more output, known only while the stage runs."""
        self._outputs.append(path)
        self._update(declared=(*self._record.declared, place(path, self.results)))

    def _use_series(self, path: Path) -> None:
        where = place(path, self.results)
        if where not in self._record.series:
            self._update(series=(*self._record.series, where))

    def _update(self, **changes: Any) -> None:
        self._record = dataclasses.replace(self._record, **changes)
        write_record(self.path, self._record)

    def _describe_outputs(self) -> None:
        for path in self._outputs:
            if not Path(path).exists():
                raise FileNotFoundError(f"stage {self._record.stage} ended without writing its output {path}")
        self._record = dataclasses.replace(
            self._record,
            outputs=tuple(describe(path, self.results) for path in self._outputs),
            artifacts=tuple(describe(path, self.results, known) for path, known in self._artifacts.items()),
        )


@contextlib.contextmanager
def stage(
    name: str,
    key: str,
    *,
    results: Path | str,
    params: Mapping[str, Any] | None = None,
    inputs: Iterable[Path | str] = (),
    outputs: Iterable[Path | str] = (),
    metrics_file: Path | str | None = None,
) -> Iterator[StageRecord]:
    """Record one execution of a stage, whatever way it ends; exceptions pass through.

    Inputs are digested before the body and outputs after it; `metrics_file` names a series that the body
    itself writes, one JSON object a line with "step", optionally "time" (seconds since 1970), and numbers.
    The status becomes FINISHED, FAILED (an exception or a non-zero exit) or KILLED (SIGTERM, Ctrl-C, or exit
    75: stopped in time and to be resubmitted). Raises FileNotFoundError when an input or, at the end, a
    declared output is missing, ValueError for a stage name that cannot be a folder name.
    """
    results = Path(os.path.abspath(results))
    handle = _begun(name, key, results, params or {}, list(outputs), metrics_file)
    clock, leaving = time.monotonic(), None
    with _terminable() as shield:
        try:
            handle._update()
            handle._update(inputs=tuple(describe(path, results) for path in inputs))
            try:
                yield handle
            except SystemExit as request:
                if request.code:
                    raise
                leaving = request
            handle._describe_outputs()
        except BaseException as error:
            shield()
            # The reason of the failure matters more than a disk too full to write it down.
            try:
                handle._update(ended=now(), seconds=round(time.monotonic() - clock, 3), **_outcome(error))
            except OSError as problem:
                print(f"warning: {handle.path} keeps the status RUNNING: {problem}", file=sys.stderr)
            raise
        shield()
        handle._update(ended=now(), seconds=round(time.monotonic() - clock, 3), status=FINISHED)
    if leaving is not None:
        raise leaving


def _begun(
    name: str,
    key: str,
    results: Path,
    params: Mapping[str, Any],
    outputs: list[Path | str],
    metrics_file: Path | str | None,
) -> StageRecord:
    """The record of an execution that begins now; nothing is written yet. ValueError for a name like a path."""
    if not NAME.fullmatch(name):
        raise ValueError(f"stage name {name!r}: letters, digits, '.', '_' and '-' only")
    record_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"
    record = Record(
        record_id=record_id,
        stage=name,
        key=key,
        status=RUNNING,
        started=now(),
        ended=None,
        seconds=None,
        error=None,
        traceback=None,
        invocation=os.environ.get(INVOCATION_VARIABLE) or None,
        params=plain(params),
        inputs=(),
        declared=tuple(place(path, results) for path in outputs),
        outputs=(),
        artifacts=(),
        series=(place(metrics_file, results),) if metrics_file is not None else (),
        environment=environment(),
        git=git_state(),
        command=tuple(sys.argv),
        process=process_identity(),
    )
    return StageRecord(results / "records" / name / f"{record_id}.json", record, results, outputs)


def _outcome(error: BaseException) -> dict[str, Any]:
    """Status, one line of error and traceback of a stage that an exception ended."""
    stopped = isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and error.code in STOPPED_EXITS
    )
    trace = "".join(traceback.format_exception(error))
    return {
        "status": KILLED if stopped else FAILED,
        "error": f"{type(error).__name__}: {error}".split("\n", 1)[0],
        "traceback": None if stopped else trace[-8000:],
    }


@contextlib.contextmanager
def _terminable() -> Iterator[Callable[[], None]]:
    """Let SIGTERM raise SystemExit(143) in the body; yields a function that shuts signals out at the end.

    A handler that somebody else installed is left in charge. Outside the main thread nothing happens, since
    Python delivers signals to the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def terminate(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    def shield() -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)

    if before[signal.SIGTERM] is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield shield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
