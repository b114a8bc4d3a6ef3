"""The record of one problem, the same for generated and for published data sets, and its table form."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

COLUMNS = ("id", "source", "problem", "answer", "tests", "repeats", "metadata")

_LATER = {"tests": "", "repeats": 1}


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
    tests: str = ""
    """Tests of a program as JSON text, empty for a problem that is graded by its answer. One of
    {"kind": "stdio", "inputs": [text], "outputs": [text]},
    {"kind": "call", "function": name, "inputs": [[argument]], "outputs": [value]},
    {"kind": "pytest", "code": text}."""
    repeats: int = 1
    """How often the problem counts."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Anything else that is known about the problem, as JSON values: difficulty, subject, year."""


def to_frame(problems: Iterable[Problem]) -> pd.DataFrame:
    """One row per problem with the columns of `COLUMNS`, text but for `repeats`; `metadata` is a JSON object.

    Raises ValueError when an id appears twice.
    """
    rows = [
        (
            *(p.id, p.source, p.problem, p.answer, p.tests, p.repeats),
            json.dumps(p.metadata, sort_keys=True, ensure_ascii=False),
        )
        for p in problems
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(
        {column: "int64" if column == "repeats" else "str" for column in COLUMNS}
    )
    _refuse_repeated_ids(frame)
    return frame


def from_frame(frame: pd.DataFrame, origin: str = "the table") -> list[Problem]:
    """The problems of a frame that `to_frame` wrote, in order; further columns are ignored.

    A frame without `tests` and `repeats`, from before they existed, has no tests and counts every problem once.
    `origin` names the file in error messages. Raises ValueError when a column is missing, an id appears
    twice, or a row's metadata is not a JSON object.
    """
    frame = frame.assign(**{name: value for name, value in _LATER.items() if name not in frame.columns})
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise ValueError(
            f"{origin} has no column {', '.join(missing)}; found {', '.join(map(str, frame.columns)) or 'none'}; "
            f"a file of problems needs {', '.join(COLUMNS)}"
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
        texts = (str(value) for value in (row.id, row.source, row.problem, row.answer, row.tests))
        problems.append(Problem(*texts, int(row.repeats), metadata))
    return problems


def _refuse_repeated_ids(frame: pd.DataFrame, origin: str = "the table") -> None:
    repeated = frame.loc[frame["id"].duplicated(), "id"]
    if len(repeated):
        raise ValueError(f"{origin} holds {len(repeated)} repeated ids, the first is {repeated.iloc[0]!r}")
