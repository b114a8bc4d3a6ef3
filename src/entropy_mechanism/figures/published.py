"""What the paper shows, read off arXiv 2505.22617v1; published/README.md tells how and with which error."""

from functools import cache
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent / "published"
FIG11_MODELS = ("qwen2.5-7b", "qwen2.5-32b")
"""Models of the paper's Fig 11, whose curves are `fig11_<model>`."""


@cache
def _read(name: str) -> pd.DataFrame:
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.csv")))
        raise KeyError(f"no published data named {name!r}; there are {known}")
    return pd.read_csv(path)


def load(name: str) -> pd.DataFrame:
    """The published points `name`, such as `fig11_qwen2.5-7b`: entropies in nats, accuracies in percent.

    Raises KeyError that lists the known names.
    """
    return _read(name).copy()


def with_gaps(frame: pd.DataFrame, longest: float = 96) -> pd.DataFrame:
    """Insert an empty row where more than `longest` steps could not be read, so that a line breaks there.

    The inserted row repeats the step before the gap and has NaN in every other numeric column.
    """
    frame = frame.sort_values("step", ignore_index=True)
    before_gap = frame[(-frame["step"].diff(-1)) > longest].copy()
    numeric = [name for name in frame.select_dtypes("number").columns if name != "step"]
    before_gap[numeric] = float("nan")
    return pd.concat([frame, before_gap]).sort_index(kind="stable").reset_index(drop=True)
