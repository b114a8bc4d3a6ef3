"""The invocation of the workflow that stages belong to: the parent of their MLflow runs."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

from entropy_mechanism.credentials import without_credentials
from entropy_mechanism.files import read_json, write_text
from entropy_mechanism.tracking.provenance import environment, git_state, process_identity, vanished
from entropy_mechanism.tracking.records import (
    FAILED,
    FINISHED,
    KILLED,
    NAME,
    RUNNING,
    now,
)

_PREFIX = "invocation-"


@dataclasses.dataclass(frozen=True)
class Invocation:
    """One start of the workflow. `process` is the workflow's, `follower` the one that sends its records."""

    invocation: str
    status: str
    started: str
    ended: str | None = None
    command: tuple[str, ...] = ()
    git: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)
    process: dict[str, Any] | None = None
    follower: dict[str, Any] | None = None


def begin_invocation(results: Path | str, invocation: str, parent_pid: int) -> Invocation:
    """Note that this process follows the workflow process `parent_pid`; an end already noted stays."""
    known = read_invocation(results, invocation)
    command: tuple[str, ...] = ()
    with contextlib.suppress(OSError):
        command = tuple(Path(f"/proc/{parent_pid}/cmdline").read_text().rstrip("\0").split("\0"))
    value = Invocation(
        invocation,
        status=RUNNING if known is None else known.status,
        started=now() if known is None else known.started,
        ended=None if known is None else known.ended,
        command=command,
        git=git_state(),
        environment=environment(),
        process=process_identity(parent_pid),
        follower=process_identity(),
    )
    return write_invocation(results, value)


def end_invocation(results: Path | str, invocation: str, status: str) -> Invocation:
    """Note how the workflow ended. Raises ValueError for anything but FINISHED, FAILED and KILLED."""
    if status not in (FINISHED, FAILED, KILLED):
        raise ValueError(f"status {status!r} of invocation {invocation}: FINISHED, FAILED or KILLED")
    moment = now()
    value = read_invocation(results, invocation) or Invocation(invocation, status, started=moment)
    return write_invocation(results, dataclasses.replace(value, status=status, ended=moment))


def settle_invocation(value: Invocation, results: Path | str) -> Invocation:
    """A workflow that claims to run although its process on this host is gone becomes KILLED."""
    if value.status != RUNNING or value.process is None or not vanished(value.process):
        return value
    value = read_invocation(results, value.invocation) or value  # it may have ended properly just now
    if value.status != RUNNING:
        return value
    value = dataclasses.replace(value, status=KILLED, ended=now())
    with contextlib.suppress(OSError):
        write_invocation(results, value)
    return value


def read_invocation(results: Path | str, invocation: str) -> Invocation | None:
    """One invocation, None when nothing is noted of it. Raises ValueError for an impossible name."""
    path = _path(results, invocation)
    if not path.is_file():
        return None
    try:
        return invocation_of(read_json(path))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not an invocation ({error}); restore or delete this file") from None


def invocation_of(value: dict[str, Any]) -> Invocation:
    """An invocation from its JSON. Raises TypeError or KeyError for anything else."""
    return Invocation(**{**value, "command": tuple(value["command"])})


def read_invocations(results: Path | str) -> list[Invocation]:
    """Every invocation noted in the results folder, by name."""
    paths = sorted((Path(results) / "records").glob(f"{_PREFIX}*.json"))
    values = (read_invocation(results, path.stem.removeprefix(_PREFIX)) for path in paths)
    return [value for value in values if value is not None]


def _path(results: Path | str, invocation: str) -> Path:
    if not NAME.fullmatch(invocation):
        raise ValueError(f"invocation {invocation!r}: letters, digits, '.', '_' and '-' only")
    return Path(results) / "records" / f"{_PREFIX}{invocation}.json"


def write_invocation(results: Path | str, value: Invocation) -> Invocation:
    """Note an invocation, with credentials inside addresses removed; returns it."""
    text = json.dumps(dataclasses.asdict(value), indent=1, ensure_ascii=False)
    write_text(_path(results, value.invocation), without_credentials(text) + "\n")
    return value
