"""The record of one problem, the same for generated and for published data sets, and its table form."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

COLUMNS = ("id", "source", "problem", "answer", "metadata")


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
    """The reference answer as it would stand inside a box."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Anything else that is known about the problem, as JSON values: difficulty, subject, year."""


def to_frame(problems: Iterable[Problem]) -> pd.DataFrame:
    """One row per problem with the columns of `COLUMNS`, all text; `metadata` is one JSON object per row.

    Raises ValueError when an id appears twice.
    """
    rows = [
        (p.id, p.source, p.problem, p.answer, json.dumps(p.metadata, sort_keys=True, ensure_ascii=False))
        for p in problems
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS), dtype="str")
    _refuse_repeated_ids(frame)
    return frame


def from_frame(frame: pd.DataFrame, origin: str = "the table") -> list[Problem]:
    """The problems of a frame that `to_frame` wrote, in order; further columns are ignored.

    `origin` names the file in error messages. Raises ValueError when a column is missing, an id appears
    twice, or a row's metadata is not a JSON object.
    """
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
        problems.append(Problem(str(row.id), str(row.source), str(row.problem), str(row.answer), metadata))
    return problems


def _refuse_repeated_ids(frame: pd.DataFrame, origin: str = "the table") -> None:
    repeated = frame.loc[frame["id"].duplicated(), "id"]
    if len(repeated):
        raise ValueError(f"{origin} holds {len(repeated)} repeated ids, the first is {repeated.iloc[0]!r}")
