"""How much of the entropy is spent, and of the performance gained, early in training (Fig. 2)."""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from entropy_mechanism.analysis.columns import ACCURACY, ENTROPY
from entropy_mechanism.analysis.law import RunPoints, points_by_run

logger = logging.getLogger(__name__)

PAPER_FRACTIONS = (1 / 12, 1 / 3)
"""Gradient steps 200 and 800 of 2,400."""

CONSUMPTION_COLUMNS = [
    *("run", "model", "method", "seed", "fraction", "step", "entropy_left", "accuracy_reached"),
]


def consumption(
    curves: pd.DataFrame,
    fractions: Sequence[float] = PAPER_FRACTIONS,
    entropy_column: str = ENTROPY,
    accuracy_column: str = ACCURACY,
) -> pd.DataFrame:
    """Return the frame of consumption.parquet: shares of each run's own total change, at `fractions` of it.

    With t the step at that fraction of the way from the run's first point to its last (rounded),
    entropy_left = (H_t - H_last) / (H_first - H_last) and
    accuracy_reached = (R_t - R_first) / (R_last - R_first).
    Values at steps without a validation are interpolated linearly between the points around them. Shares
    leave [0, 1] when a run overshoots its end, and describe the change in whichever direction it went; they
    are NaN where a run's total change is zero. Runs with fewer than two points are left out with a warning.

    Raises ValueError for a fraction outside [0, 1] and as `law.points_by_run` does.
    """
    for fraction in fractions:
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction is {fraction}, allowed are numbers from 0 to 1")
    records = []
    for run in points_by_run(curves, entropy_column, accuracy_column):
        if run.steps.size < 2:
            logger.warning("%s: %d points, no total change to share", run.identity["run"], run.steps.size)
            continue
        records += [_shares(run, fraction) for fraction in fractions]
    return pd.DataFrame(records, columns=CONSUMPTION_COLUMNS)


def _shares(run: RunPoints, fraction: float) -> dict[str, object]:
    first, last = run.steps[0], run.steps[-1]
    step = round(first + fraction * (last - first))
    return run.identity | {
        "fraction": fraction,
        "step": step,
        "entropy_left": 1 - _share_of_change(run.steps, run.entropy, step),
        "accuracy_reached": _share_of_change(run.steps, run.accuracy, step),
    }


def _share_of_change(steps: np.ndarray, values: np.ndarray, step: int) -> float:
    total = values[-1] - values[0]
    return float((np.interp(step, steps, values) - values[0]) / total) if total else np.nan
