"""Records and series in the form that MLflow takes: allowed names, lengths and batch sizes."""

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from entropy_mechanism.tracking.records import Record

POINTS_PER_BATCH = 1000  # one request: what is repeated at most after a crash between sending and noting
KEY_LENGTH, PARAM_LENGTH, TAG_LENGTH = 250, 6000, 8000  # of MLflow's columns


def batches(path: Path, start: int, started: int, ended: bool) -> Iterator[tuple[int, list[Any]]]:
    """Points of the lines after `start`, at most 1000 at a time, each batch with the number of its last line.

    A line that is still being written waits for its end, unless its writer has `ended`. The time of a point
    is the line's own "time", else `started` (ms) plus the line number: it must be the same when sent again.
    """
    from mlflow.entities import Metric

    if not path.is_file():
        return
    batch: list[Any] = []
    number = start
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if number <= start:
                continue
            if not line.endswith(b"\n") and not ended:
                number -= 1
                break
            points = [
                Metric(_name(name), value, moment, step)
                for name, value, moment, step in _read_line(line, started + number)
            ]
            if batch and len(batch) + len(points) > POINTS_PER_BATCH:
                yield number - 1, batch
                batch = []
            while len(points) > POINTS_PER_BATCH:
                yield number - 1, points[:POINTS_PER_BATCH]
                points = points[POINTS_PER_BATCH:]
            batch += points
    if number > start:
        yield number, batch


def _read_line(line: bytes, moment: int) -> list[tuple[str, float, int, int]]:
    """(name, value, time in ms, step) of the finite numbers of one line; none when it is torn."""
    try:
        values = json.loads(line)
        step = int(values.pop("step", None) or 0)
        seconds = values.pop("time", None)
    except (ValueError, TypeError, AttributeError):
        return []
    if isinstance(seconds, int | float):
        moment = round(seconds * 1000)
    return [
        (name, float(value), moment, step)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]


@functools.cache
def _name(text: str) -> str:
    """`text` as MLflow accepts it for a parameter or metric: `pass@8` becomes `pass_8`."""
    parts = re.sub(r"[^\w\-. :/]", "_", text).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:KEY_LENGTH].strip("/") or "_"


def params_of(value: Mapping[str, Any]) -> dict[str, str]:
    """Nested parameters as `outer.inner: text`; what MLflow would refuse is shortened or renamed."""
    flat: dict[str, str] = {}

    def add(prefix: str, item: Any) -> None:
        if isinstance(item, Mapping) and item:
            for name, inner in item.items():
                add(f"{prefix}.{name}" if prefix else str(name), inner)
            return
        text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
        name, count = _name(prefix), 2
        while name in flat:
            name, count = f"{_name(prefix)[: KEY_LENGTH - 8]}-{count}", count + 1
        flat[name] = text if len(text) <= PARAM_LENGTH else text[: PARAM_LENGTH - 1] + "…"

    add("", value) if value else None
    return flat


def tags_of(record: Record) -> dict[str, str]:
    """What a person searches runs by: revision, host, error and the digest of every output."""
    tags = {
        "git_revision": record.git.get("revision"),
        "git_dirty": record.git.get("dirty"),
        "host": record.environment.get("host"),
        "slurm_job_id": record.environment.get("slurm_job_id"),
        "error": record.error,
        "mlflow.source.name": f"entropy-mechanism {record.stage}",
        "mlflow.source.git.commit": record.git.get("revision"),
    }
    for file in record.outputs:
        if _name(name := f"sha256.{file.path}") == name:
            tags[name] = file.sha256
    return {name: str(text)[:TAG_LENGTH] for name, text in tags.items() if text is not None}
