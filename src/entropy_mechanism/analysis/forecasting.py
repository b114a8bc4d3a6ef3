"""Predicting the late part of a run from its early part (Fig. 5 of arXiv 2505.22617)."""

import logging
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from entropy_mechanism.analysis.law import (
    ACCURACY,
    ENTROPY,
    MINIMUM_POINTS,
    RunPoints,
    law,
    least_squares,
    points_by_run,
)

logger = logging.getLogger(__name__)

FORECAST_COLUMNS = [
    *("run", "model", "method", "seed", "fraction", "points_fitted", "points_predicted"),
    *("a", "b", "rmse", "final_error"),
]
FORECAST_POINT_COLUMNS = [
    *("run", "model", "method", "seed", "fraction", "step", "entropy", "accuracy", "predicted", "fitted"),
]


def forecast_runs(
    curves: pd.DataFrame,
    fractions: Sequence[float] = (0.15,),
    entropy_column: str = ENTROPY,
    accuracy_column: str = ACCURACY,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit Eq. 6 on the first `fractions` of every run and predict the rest from its measured entropies.

    Returns the frames of forecasts.parquet (one row per run and fraction) and forecast_points.parquet (one
    row per run, fraction and point). A point belongs to the fitted window when its step lies within
    `fraction` of the way from the run's first point to its last; the window always holds at least the first
    three points, because two determine the curve exactly (`points_fitted` and `fitted` tell, and a warning is
    logged). `rmse` is over the predicted points, `final_error` is |predicted - measured| at the last one;
    both are fractions, and NaN when nothing is left to predict. A run with fewer than three points or a
    constant entropy in the window has NaN coefficients and predictions.

    Raises ValueError for a fraction outside (0, 1) and as `law.points_by_run` does.
    """
    for fraction in fractions:
        if not 0 < fraction < 1:
            raise ValueError(f"fraction is {fraction}, allowed are numbers between 0 and 1")
    forecasts, points = [], []
    for run in points_by_run(curves, entropy_column, accuracy_column):
        for fraction in fractions:
            forecast, predicted = _forecast(run, fraction)
            forecasts.append(forecast)
            points.append(predicted)
    return (
        pd.DataFrame(forecasts, columns=FORECAST_COLUMNS),
        pd.concat(points, ignore_index=True) if points else pd.DataFrame(columns=FORECAST_POINT_COLUMNS),
    )


def _forecast(run: RunPoints, fraction: float) -> tuple[dict[str, object], pd.DataFrame]:
    fitted = _window(run, fraction)
    a = b = math.nan
    if fitted.sum() >= MINIMUM_POINTS:
        a, b = (float(value) for value in least_squares(run.entropy[fitted], run.accuracy[fitted]))
    if math.isnan(a):
        logger.warning("%s: no forecast from the first %g of training", run.identity["run"], fraction)
    predicted = law(run.entropy, a, b)
    errors = (predicted - run.accuracy)[~fitted]
    identity = {name: run.identity[name] for name in ("run", "model", "method", "seed")}
    forecast = identity | {
        "fraction": fraction,
        "points_fitted": int(fitted.sum()),
        "points_predicted": errors.size,
        "a": a,
        "b": b,
        "rmse": math.sqrt((errors**2).mean()) if errors.size else math.nan,
        "final_error": abs(errors[-1]) if errors.size else math.nan,
    }
    columns = {
        "step": run.steps,
        "entropy": run.entropy,
        "accuracy": run.accuracy,
        "predicted": predicted,
        "fitted": fitted,
    }
    points = pd.DataFrame(columns).assign(**identity, fraction=fraction)
    return forecast, points[FORECAST_POINT_COLUMNS]


def _window(run: RunPoints, fraction: float) -> np.ndarray:
    """Mark the fitted points, shape (points,)."""
    if run.steps.size == 0:
        return np.zeros(0, dtype=bool)
    first, last = run.steps[0], run.steps[-1]
    # the tolerance keeps step 36 of 240 inside 0.15, which in floating point is 36.0 or a little less
    within = run.steps - first <= fraction * (last - first) + 1e-9
    if within.sum() < MINIMUM_POINTS:
        logger.warning(
            "%s: %d points in the first %g of training; the first %d are fitted",
            *(run.identity["run"], within.sum(), fraction, min(MINIMUM_POINTS, run.steps.size)),
        )
        within[:MINIMUM_POINTS] = True
    return within
