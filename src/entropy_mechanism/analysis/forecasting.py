"""Predicting one part of a run from another (Fig. 5 of arXiv 2505.22617), beside predictors that know less."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from entropy_mechanism.analysis.columns import ACCURACY, ENTROPY
from entropy_mechanism.analysis.forms import project
from entropy_mechanism.analysis.law import MINIMUM_POINTS, RunPoints, law, points_by_run

logger = logging.getLogger(__name__)

FORECAST_COLUMNS = [
    *("run", "model", "method", "seed", "fraction", "predictor", "direction", "points_fitted", "points_predicted"),
    *("a", "b", "rmse", "final_error"),
]
FORECAST_POINT_COLUMNS = [
    *("run", "model", "method", "seed", "fraction", "predictor", "direction"),
    *("step", "entropy", "accuracy", "predicted", "fitted"),
]
FORWARD, REVERSED = "forward", "reversed"
"""The early part is fitted and the late predicted, or the other way round."""
EXPONENTIAL, LAST_VALUE = "exponential", "last-value"
PREDICTORS: dict[str, Callable[[RunPoints], np.ndarray]] = {
    EXPONENTIAL: lambda run: np.exp(run.entropy),
    LAST_VALUE: lambda run: np.zeros(run.entropy.size),
    "log-steps": lambda run: np.log1p(run.steps.astype(float)),
    "log-entropy": lambda run: np.log(np.where(run.entropy > 0, run.entropy, np.nan)),
    "linear": lambda run: run.entropy,
}
"""Feature u of each predictor R = -a u + b. The last value repeats the accuracy next to what is predicted;
log-steps knows nothing of entropy."""


def forecast_runs(
    curves: pd.DataFrame,
    fractions: Sequence[float] = (0.15,),
    entropy_column: str = ENTROPY,
    accuracy_column: str = ACCURACY,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit every predictor to a part of every run and predict the rest from its measured entropies or steps.

    Returns the frames of forecasts.parquet (one row per run, fraction, predictor and direction) and
    forecast_points.parquet (one row per run, fraction and point, for the law predicting forward). A point
    belongs to the fitted window when its step lies within `fraction` of the way from the run's first point to
    its last, in reversed direction from its last to its first; the window always holds at least the three points
    at its end, because two determine a curve exactly (`points_fitted` and `fitted` tell, and a warning is
    logged). `rmse` is over the predicted points, `final_error` is |predicted - measured| at the one farthest
    from the window; both are fractions, and NaN when nothing is left to predict. Coefficients and predictions
    are NaN for a run with fewer than three points or a constant feature in the window.

    Raises ValueError for a fraction outside (0, 1) and as `law.points_by_run` does.
    """
    for fraction in fractions:
        if not 0 < fraction < 1:
            raise ValueError(f"fraction is {fraction}, allowed are numbers between 0 and 1")
    forecasts, points = [], []
    for run in points_by_run(curves, entropy_column, accuracy_column):
        identity = {name: run.identity[name] for name in ("run", "model", "method", "seed")}
        for fraction in fractions:
            for direction in (FORWARD, REVERSED):
                fitted = _window(run, fraction, direction)
                for predictor, feature in PREDICTORS.items():
                    names = identity | {"fraction": fraction, "predictor": predictor, "direction": direction}
                    forecast, predicted = _forecast(run, fitted, predictor, feature(run), direction)
                    forecasts.append(names | forecast)
                    if (predictor, direction) == (EXPONENTIAL, FORWARD):
                        points.append(_points(run, fitted, predicted).assign(**names))
                        if math.isnan(forecast["a"]):
                            logger.warning(
                                "%s: no forecast from the first %g of training", run.identity["run"], fraction
                            )
    return (
        pd.DataFrame(forecasts, columns=FORECAST_COLUMNS),
        pd.concat(points)[FORECAST_POINT_COLUMNS].reset_index(drop=True)
        if points
        else pd.DataFrame(columns=FORECAST_POINT_COLUMNS),
    )


def _forecast(
    run: RunPoints, fitted: np.ndarray, predictor: str, feature: np.ndarray, direction: str
) -> tuple[dict[str, Any], np.ndarray]:
    """Measures of one forecast and the predictions of all points, shape (points,)."""
    a = b = math.nan
    if fitted.sum() >= MINIMUM_POINTS:
        if predictor == LAST_VALUE:
            a, b = 0.0, run.accuracy[fitted][-1 if direction == FORWARD else 0]
        else:
            level, slope, _ = project(feature[fitted], run.accuracy[fitted])
            a, b = -float(slope), float(level)
    predicted = law(run.entropy, a, b) if predictor == EXPONENTIAL else b - a * feature
    errors = (predicted - run.accuracy)[~fitted]
    measures = {
        "points_fitted": int(fitted.sum()),
        "points_predicted": errors.size,
        "a": a,
        "b": b,
        "rmse": math.sqrt((errors**2).mean()) if errors.size else math.nan,
        "final_error": abs(errors[-1 if direction == FORWARD else 0]) if errors.size else math.nan,
    }
    return measures, predicted


def _points(run: RunPoints, fitted: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "step": run.steps,
            "entropy": run.entropy,
            "accuracy": run.accuracy,
            "predicted": predicted,
            "fitted": fitted,
        }
    )


def _window(run: RunPoints, fraction: float, direction: str) -> np.ndarray:
    """Mark the fitted points, shape (points,)."""
    if run.steps.size == 0:
        return np.zeros(0, dtype=bool)
    first, last = run.steps[0], run.steps[-1]
    passed = run.steps - first if direction == FORWARD else last - run.steps
    # the tolerance keeps step 36 of 240 inside 0.15, which in floating point is 36.0 or a little less
    within = passed <= fraction * (last - first) + 1e-9
    if within.sum() < MINIMUM_POINTS:
        ends = "first" if direction == FORWARD else "last"
        logger.warning(
            "%s: %d points in the %s %g of training; the %s %d are fitted",
            *(run.identity["run"], within.sum(), ends, fraction, ends, min(MINIMUM_POINTS, run.steps.size)),
        )
        within[slice(MINIMUM_POINTS) if direction == FORWARD else slice(-MINIMUM_POINTS, None)] = True
    return within
