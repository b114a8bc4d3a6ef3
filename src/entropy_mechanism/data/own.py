"""Problems in a file of one's own: JSON lines, CSV or parquet, with columns for text and answer."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from entropy_mechanism.config import FileSet
from entropy_mechanism.data.normalise import Unusable, answer_text, problem_text
from entropy_mechanism.data.problems import Problem
from entropy_mechanism.data.published import Account


def read_own(settings: FileSet, name: str) -> tuple[list[Problem], dict[str, Any]]:
    """The problems of a file in its order, and what the statistics file says about them.

    An id is the data set's name and the number of the row, counted from 0; further columns are metadata. Texts are
    brought into form as those of published sets (docs/data.md), and rows without text or answer are left out.
    Raises ValueError when a column is missing or no row can be used.
    """
    path, dropped = Path(settings.path), Account()
    problems = []
    rows = read_rows(path)
    for number, row in enumerate(rows):
        missing = [column for column in (settings.problem, settings.answer) if column not in row]
        if missing:
            raise ValueError(
                f"{path}: row {number + 1} has no column {', '.join(missing)}; found {', '.join(row) or 'none'}; "
                "name the columns in `problem` and `answer` of the data set"
            )
        id = f"{name}:{number}"
        try:
            problem, answer = problem_text(row.pop(settings.problem)), answer_text(row.pop(settings.answer))
        except Unusable as reason:
            dropped.add(str(reason), id)
        else:
            problems.append(Problem(id, name, problem, answer, row))
    if not problems:
        raise ValueError(f"{path}: none of its {len(rows)} rows has a problem and an answer")
    return problems, {
        "source": name,
        "place": str(path),
        "read": len(rows),
        "kept": len(problems),
        "dropped": dropped.entries,
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl, .csv or .parquet file. Raises ValueError naming the file (and line) otherwise."""
    try:
        if path.suffix == ".parquet":
            return json.loads(pd.read_parquet(path).to_json(orient="records"))
        if path.suffix == ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise
    except Exception as error:  # pandas and pyarrow raise a dozen kinds for what is no table
        raise ValueError(f"{path} cannot be read as {path.suffix}: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: found {line[:40]}; a line is one object")
        rows.append(row)
    return rows
