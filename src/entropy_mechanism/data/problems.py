"""The record of one problem, the same for generated and for published data sets, and its table form."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow.parquet as pq

COLUMNS = ("id", "source", "problem", "answer", "tests", "repeats", "metadata")
_LATER = {"tests": "", "repeats": 1}
"""Columns that files of earlier versions lack, and what stands in for them."""


@dataclass(frozen=True)
class Problem:
    """One problem with its reference answer."""

    id: str
    """Identifies the problem within a file; a file never holds one id twice."""
    source: str
    """Name of the data set that the problem comes from."""
    problem: str
    """The text that the policy is asked, without chat template."""
    answer: str
    """The reference answer as it would stand inside a box; empty for a problem that is graded by tests."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Anything else that is known about the problem, as JSON values: difficulty, subject, year."""
    tests: str = ""
    """Tests of a program as JSON text, in a form that `rewards.code` reads; empty when the answer is graded."""
    repeats: int = 1
    """How many times the problem counts in a data set that holds it more than once."""


def to_frame(problems: Iterable[Problem]) -> pd.DataFrame:
    """One row per problem with the columns of `COLUMNS`, all text but `repeats`; `metadata` is one JSON object.

    Raises ValueError when an id appears twice.
    """
    rows = [(p.id, p.source, p.problem, p.answer, p.tests, p.repeats, _json(p.metadata)) for p in problems]
    frame = pd.DataFrame(rows, columns=list(COLUMNS), dtype="str").astype({"repeats": "int64"})
    _refuse_repeated_ids(frame)
    return frame


def from_frame(frame: pd.DataFrame, origin: str = "the table") -> list[Problem]:
    """The problems of a frame that `to_frame` wrote, in order; further columns are ignored.

    `origin` names the file in error messages. A file without `tests` or `repeats`, which earlier versions wrote,
    has none and 1. Raises ValueError when another column is missing, an id appears twice, or a row's metadata is
    not a JSON object.
    """
    frame = frame.assign(**{name: value for name, value in _LATER.items() if name not in frame.columns})
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise ValueError(
            f"{origin} has no column {', '.join(missing)}; found {', '.join(map(str, frame.columns)) or 'none'}; "
            f"a file of problems needs {', '.join(name for name in COLUMNS if name not in _LATER)}"
        )
    _refuse_repeated_ids(frame, origin)
    problems = []
    for row in frame[list(COLUMNS)].itertuples(index=False):
        try:
            metadata = json.loads(row.metadata)
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{origin}: metadata of problem {row.id} is not JSON: {row.metadata!r}") from error
        if not isinstance(metadata, dict):
            raise ValueError(f"{origin}: metadata of problem {row.id} is not a JSON object: {row.metadata!r}")
        texts = (str(row.id), str(row.source), str(row.problem), str(row.answer))
        problems.append(Problem(*texts, metadata, str(row.tests), int(row.repeats)))
    return problems


def task(path: Path) -> Literal["math", "code"]:
    """What a file of problems asks for: `code` when any of them is graded by tests, else `math`."""
    with pq.ParquetFile(path) as file:
        if "tests" not in file.schema_arrow.names:  # see _LATER
            return "math"
        batches = file.iter_batches(columns=["tests"])
        return "code" if any(any(batch["tests"].to_pylist()) for batch in batches) else "math"


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _refuse_repeated_ids(frame: pd.DataFrame, origin: str = "the table") -> None:
    repeated = frame.loc[frame["id"].duplicated(), "id"]
    if len(repeated):
        raise ValueError(f"{origin} holds {len(repeated)} repeated ids, the first is {repeated.iloc[0]!r}")
