"""The entropy-performance law R = -a exp(H) + b (Eq. 6 of arXiv 2505.22617), fitted to single runs.

H is the policy's entropy in nats per token, R its validation accuracy as a fraction. Given exp(H) the law is
linear in a and b, so ordinary least squares has a closed form: no starting point, no iterations.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from entropy_mechanism.analysis.columns import ACCURACY, ENTROPY
from entropy_mechanism.statistics import autoregressive_noise, generator, percentile_interval

logger = logging.getLogger(__name__)

MINIMUM_POINTS = 3
"""Two points always lie on a curve with two coefficients; a third is the first to say anything."""

LAW_COLUMNS = [
    *("run", "model", "train_set", "method", "seed", "points"),
    *("a", "a_low", "a_high", "b", "b_low", "b_high", "ceiling", "ceiling_low", "ceiling_high"),
    *("rmse", "r2", "entropy_first", "entropy_last", "accuracy_first", "accuracy_last", "accuracy_max"),
]


@dataclass(frozen=True)
class LawFit:
    """Coefficients of one fitted run; accuracies are fractions, so a, b and the ceiling are too.

    `*_low` and `*_high` bound the bootstrap interval. `rmse` is sqrt(mean squared residual). `r2` is NaN when
    every accuracy is equal. `dropped` counts the pairs left out because one of the two was not finite. Where no
    fit exists `reason` says why and every coefficient is NaN.
    """

    points: int
    dropped: int
    a: float = math.nan
    a_low: float = math.nan
    a_high: float = math.nan
    b: float = math.nan
    b_low: float = math.nan
    b_high: float = math.nan
    ceiling: float = math.nan
    ceiling_low: float = math.nan
    ceiling_high: float = math.nan
    rmse: float = math.nan
    r2: float = math.nan
    reason: str | None = None


@dataclass(frozen=True)
class RunPoints:
    """The (entropy, accuracy) points of one run in order of `step`; three arrays of equal length.

    `identity` holds run, model, train_set, method and seed, `steps` the rollout step of each point and
    `dropped` the number of validated rows left out because their entropy is missing.
    """

    identity: dict[str, Any]
    steps: np.ndarray
    entropy: np.ndarray
    accuracy: np.ndarray
    dropped: int


def law(entropy: np.ndarray, a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    """Return R = -a exp(H) + b (Eq. 6), element by element; shapes are broadcast."""
    return -a * np.exp(entropy) + b


def least_squares(entropy: np.ndarray, accuracy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (a, b) minimising sum (R + a exp(H) - b)^2 over the last axis, in closed form.

    Inputs have shape (..., points) and must be finite; outputs have shape (...). Where the entropy is
    constant to nine digits of exp(H) the slope is undefined and both are NaN.
    """
    x = np.exp(entropy)
    x_mean, y_mean = x.mean(axis=-1), accuracy.mean(axis=-1)
    centred = x - x_mean[..., None]
    variance = (centred**2).mean(axis=-1)
    variance = np.where(variance > (1e-9 * x_mean) ** 2, variance, np.nan)
    a = -(centred * accuracy).mean(axis=-1) / variance
    return a, y_mean + a * x_mean


def fit_law(
    entropy: np.ndarray,
    accuracy: np.ndarray,
    seed: int | np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> LawFit:
    """Fit Eq. 6 to the points of one run, given in training order, with bootstrap intervals.

    `entropy` in nats per token and `accuracy` as fractions are one-dimensional and equally long. The interval
    is the percentile interval over `resamples` refits of the fitted curve with AR(1) noise like the residuals:
    neighbouring validations share their noise. It takes the curve for true; where residuals show that it is not,
    they count as persistent noise and widen the interval.

    Pairs that are not finite are dropped and counted. Fewer than three points or a constant entropy give a
    LawFit of NaN with its `reason`. Raises ValueError when the two arrays do not match.
    """
    entropy, accuracy = np.asarray(entropy, dtype=float), np.asarray(accuracy, dtype=float)
    if entropy.ndim != 1 or entropy.shape != accuracy.shape:
        raise ValueError(
            f"entropy and accuracy must be one-dimensional and equally long, found shapes {entropy.shape} "
            f"and {accuracy.shape}"
        )
    finite = np.isfinite(entropy) & np.isfinite(accuracy)
    entropy, accuracy = entropy[finite], accuracy[finite]
    points, dropped = entropy.size, int((~finite).sum())
    if points < MINIMUM_POINTS:
        reason = f"{points} points with entropy and accuracy, at least {MINIMUM_POINTS} are needed"
        return LawFit(points, dropped, reason=reason)
    a, b = (float(value) for value in least_squares(entropy, accuracy))
    if math.isnan(a):
        return LawFit(points, dropped, reason=f"entropy is constant at {entropy[0]:.6g} nats per token")

    fitted = law(entropy, a, b)
    rmse, r2 = _residual_statistics(entropy, accuracy, a, b)
    noise = autoregressive_noise(accuracy - fitted, resamples, np.random.default_rng(seed))
    replicate_a, replicate_b = least_squares(entropy, fitted + noise)
    a_low, a_high = percentile_interval(replicate_a, level)
    b_low, b_high = percentile_interval(replicate_b, level)
    ceiling_low, ceiling_high = percentile_interval(replicate_b - replicate_a, level)
    return LawFit(
        points,
        dropped,
        a=a,
        a_low=a_low,
        a_high=a_high,
        b=b,
        b_low=b_low,
        b_high=b_high,
        ceiling=b - a,
        ceiling_low=ceiling_low,
        ceiling_high=ceiling_high,
        rmse=rmse,
        r2=r2,
    )


def _residual_statistics(entropy: np.ndarray, accuracy: np.ndarray, a: float, b: float) -> tuple[float, float]:
    """`rmse` and `r2` of a `LawFit`."""
    residuals = accuracy - law(entropy, a, b)
    squares, total = float(residuals @ residuals), float(((accuracy - accuracy.mean()) ** 2).sum())
    return math.sqrt(squares / entropy.size), 1 - squares / total if np.ptp(accuracy) > 0 else math.nan


def points_by_run(
    curves: pd.DataFrame, entropy_column: str = ENTROPY, accuracy_column: str = ACCURACY
) -> Iterator[RunPoints]:
    """Yield the points of each run of curves.parquet, runs in order of appearance.

    A point is a row with a validation accuracy. One whose entropy is not finite is dropped, counted and named
    in a warning; no other entropy column takes its place. Raises ValueError for a missing column or a step
    that a run has twice.
    """
    identity = ["run", "model", "train_set", "method", "seed"]
    require_columns(curves, [*identity, "step", entropy_column, accuracy_column])
    for run, rows in rows_by_run(curves):
        validated = rows[rows[accuracy_column].notna()]
        complete = validated[np.isfinite(validated[entropy_column].astype(float))]
        dropped = len(validated) - len(complete)
        if dropped:
            logger.warning("%s: %d validated steps without %s are left out", run, dropped, entropy_column)
        yield RunPoints(
            identity=rows[identity].iloc[0].to_dict(),
            steps=complete["step"].to_numpy(),
            entropy=complete[entropy_column].to_numpy(dtype=float),
            accuracy=complete[accuracy_column].to_numpy(dtype=float),
            dropped=dropped,
        )


def rows_by_run(curves: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each run's name and its rows in order of `step`; ValueError for a step that a run has twice."""
    for run, rows in curves.groupby("run", sort=False):
        rows = rows.sort_values("step")
        repeated = rows["step"][rows["step"].duplicated()]
        if not repeated.empty:
            raise ValueError(f"curves: run {run!r} has step {repeated.iloc[0]} twice")
        yield run, rows


def require_columns(frame: pd.DataFrame, columns: list[str], name: str = "curves") -> None:
    """Raise ValueError naming the `columns` that `frame` lacks and those it has."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"{name}: missing {', '.join(missing)}; found {', '.join(map(str, frame.columns))}")


def fit_runs(
    curves: pd.DataFrame,
    seed: int,
    resamples: int = 1000,
    entropy_column: str = ENTROPY,
    accuracy_column: str = ACCURACY,
) -> pd.DataFrame:
    """Fit Eq. 6 to every run of curves.parquet: one row per run, the columns of law.parquet.

    First, last and maximal values are over the fitted points. A run that cannot be fitted keeps its row, with
    NaN coefficients, and the reason is logged as a warning. Every run has its own random stream, so its
    interval does not depend on which other runs are there. Raises ValueError as `points_by_run` does.
    """
    records = []
    for run in points_by_run(curves, entropy_column, accuracy_column):
        name = run.identity["run"]
        fit = fit_law(run.entropy, run.accuracy, generator(seed, str(name)), resamples)
        if fit.reason:
            logger.warning("%s: law not fitted: %s", name, fit.reason)
        records.append({**run.identity, **vars(fit), **_extremes(run)})
    return pd.DataFrame(records, columns=LAW_COLUMNS)


def _extremes(run: RunPoints) -> dict[str, float]:
    if run.steps.size == 0:
        return {}
    return {
        "entropy_first": run.entropy[0],
        "entropy_last": run.entropy[-1],
        "accuracy_first": run.accuracy[0],
        "accuracy_last": run.accuracy[-1],
        "accuracy_max": run.accuracy.max(),
    }
