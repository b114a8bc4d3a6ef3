"""Functional forms of the curve of accuracy R on entropy H, compared on the points of one run.

Every form is R = level + slope * u(x), where the feature u of entropy or step has no, one or two shape parameters
of its own. Given these, level and slope follow from least squares in closed form, so a fit searches shape
parameters alone: a grid first, then a local search from its best point. There is nothing to start badly and
nothing that does not converge.
"""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from entropy_mechanism.analysis.columns import ACCURACY, ENTROPY
from entropy_mechanism.analysis.law import RunPoints, points_by_run
from entropy_mechanism.statistics import autocorrelation, effective_points

logger = logging.getLogger(__name__)

BLOCKS = 5
"""Blocks of consecutive points, each left out once."""
MEASURES = [
    *("rss", "aicc", "bic", "delta_aicc", "weight", "effective_points"),
    *("delta_aicc_effective", "weight_effective", "blocked_rmse", "extrapolation_rmse", "autocorrelation"),
]
FORM_COLUMNS = [
    *("run", "model", "train_set", "method", "seed", "form", "parameters", "points"),
    *(*MEASURES, "coefficients", "reason"),
]
SMALLEST_CURVATURE = 1e-4
"""An exponent closer to 0 is moved here: the form is then its limit to four digits and has finite coefficients."""
Feature = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Form:
    """One functional form.

    `feature(x, shape)` maps x, shape (points,), and shape parameters, shape (..., parameters), to u, shape (...,
    points). `grid(x)` are the shape parameters tried first, shape (candidates, parameters); the search does not
    leave their range. `name_coefficients(level, slope, *shape)` gives the coefficients as the formula has them.
    """

    name: str
    formula: str
    feature: Feature
    name_coefficients: Callable[..., dict[str, float]]
    grid: Callable[[np.ndarray], np.ndarray] | None = None
    of_steps: bool = False
    positive: bool = False

    @cached_property
    def parameters(self) -> int:
        """Coefficients of the curve; the noise's variance is one more."""
        return 2 + (0 if self.grid is None else self.grid(np.array([0.1, 1.0])).shape[1])


@dataclass(frozen=True)
class Fitted:
    """A form fitted to points: `predict(x)` gives accuracies for entropies (steps, where the form is of steps)."""

    form: Form
    level: float
    slope: float
    shape: np.ndarray
    at_bound: bool

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Accuracies at `x`, shape (points,)."""
        return self.level + self.slope * self.form.feature(x, self.shape)

    def coefficients(self) -> str:
        """Coefficients as the formula names them, as JSON; `at_bound` where the search ended at its limit."""
        named = self.form.name_coefficients(self.level, self.slope, *map(float, self.shape))
        return json.dumps(named | ({"at_bound": True} if self.at_bound else {}))


def _away_from_zero(exponent: np.ndarray) -> np.ndarray:
    return np.where(np.abs(exponent) < SMALLEST_CURVATURE, SMALLEST_CURVATURE, exponent)


def _power(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    c = _away_from_zero(shape[..., :1])
    return np.expm1(c * np.log(x)) / c


def _curved_exponential(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    c = _away_from_zero(shape[..., :1])
    return np.expm1(c * x) / c


def _logistic(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip((x - shape[..., :1]) / shape[..., 1:2], -500, 500)))


def _rescaled(level: float, slope: float, c: float) -> dict[str, float]:
    """Coefficients of R = b - a f(cx), which was fitted as level + slope (f(cx) - 1) / c."""
    c = float(_away_from_zero(np.array(c)))
    return {"a": -slope / c, "b": level - slope / c, "c": c}


def _two(level: float, slope: float) -> dict[str, float]:
    return {"a": -slope, "b": level}


def _logistic_grid(x: np.ndarray) -> np.ndarray:
    first, last = x.min(), x.max()
    span = (last - first) or 1.0
    middles = first + span * np.linspace(-0.5, 1.25, 29)
    widths = span * np.geomspace(0.01, 1, 15)
    return np.stack(np.meshgrid(middles, widths), axis=-1).reshape(-1, 2)


def _curvature_grid(x: np.ndarray) -> np.ndarray:
    span = np.ptp(x) or 1.0
    return np.linspace(-20, 20, 80)[:, None] / span


FORMS = {
    form.name: form
    for form in (
        Form("exponential", "R = -a exp(H) + b", lambda x, _: np.exp(x), _two),
        Form("linear", "R = -a H + b", lambda x, _: x, _two),
        Form("log", "R = -a ln H + b", lambda x, _: np.log(x), _two, positive=True),
        Form("square-root", "R = -a sqrt(H) + b", lambda x, _: np.sqrt(x), _two),
        Form(
            "power", "R = -a H^c + b", _power, _rescaled, lambda x: np.linspace(-2, 4, 60)[:, None], positive=True
        ),
        Form("exponential-3", "R = -a exp(cH) + b", _curved_exponential, _rescaled, _curvature_grid),
        Form(
            "logistic-steps",
            "R = low + (high - low) / (1 + exp(-(step - middle) / width))",
            _logistic,
            lambda level, slope, middle, width: {
                "low": level,
                "high": level + slope,
                "middle": middle,
                "width": width,
            },
            _logistic_grid,
            of_steps=True,
        ),
    )
}
"""Power and exponential-3 contain others as limits: linear (c = 1, c -> 0), square root (c = 1/2), log (c -> 0)
and the law itself (c = 1)."""


def project(feature: np.ndarray, accuracy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares of R = level + slope u: level, slope and sum of squared residuals, each of shape (...).

    `feature` has shape (..., points). Where it is constant to nine digits, or not finite, the slope is
    undefined: level and slope are NaN and the sum infinite.
    """
    with np.errstate(all="ignore"):
        mean = feature.mean(axis=-1)
        centred = feature - mean[..., None]
        variance = (centred**2).mean(axis=-1)
        usable = np.isfinite(variance) & (variance > (1e-9 * np.abs(feature).max(axis=-1)) ** 2)
        slope = np.where(usable, (centred * accuracy).mean(axis=-1) / np.where(usable, variance, 1), np.nan)
        level = accuracy.mean() - slope * mean
        squares = ((accuracy - level[..., None] - slope[..., None] * feature) ** 2).sum(axis=-1)
    return level, slope, np.where(np.isfinite(squares), squares, np.inf)


def fit_form(form: Form, x: np.ndarray, accuracy: np.ndarray) -> Fitted | None:
    """Fit a form by least squares; None where the points do not determine it.

    `x` (entropies, or steps where the form is of steps) and `accuracy` are one-dimensional, finite and equally
    long. A form is undetermined with fewer points than parameters plus one, with a constant x, and, where its
    feature is a logarithm, with an entropy of 0.
    """
    if x.size <= form.parameters or (form.positive and not (x > 0).all()) or not np.ptp(x) > 0:
        return None
    shape, at_bound = np.empty(0), False
    if form.grid is not None:
        grid = form.grid(x)
        squares = project(form.feature(x, grid), accuracy)[2]
        low, high = grid.min(axis=0), grid.max(axis=0)

        def objective(candidate: np.ndarray) -> float:
            return float(project(form.feature(x, np.clip(candidate, low, high)), accuracy)[2])

        start = grid[int(np.argmin(squares))]
        steps = np.vstack([start, start + np.diag((high - low) / 50)])
        found = minimize(
            objective,
            start,
            method="Nelder-Mead",
            options={"initial_simplex": steps, "maxfev": 200, "xatol": 1e-6},
        )
        shape = np.clip(found.x if found.fun <= squares.min() else start, low, high)
        at_bound = bool((np.isclose(shape, low, rtol=1e-3) | np.isclose(shape, high, rtol=1e-3)).any())
    level, slope, rss = project(form.feature(x, shape), accuracy)
    if not np.isfinite(rss):
        return None
    return Fitted(form, float(level), float(slope), shape, at_bound)


def information_criteria(rss: float, points: float, parameters: int) -> tuple[float, float]:
    """AICc and BIC of a least-squares fit with Gaussian noise, up to a constant that all fits to the points share.

    `parameters` are the curve's coefficients; the variance of the noise is counted as one more. `points` may be an
    effective number. AICc is NaN where points - parameters - 2 is not positive: it then has no finite correction.
    """
    k = parameters + 1
    deviance = points * math.log(rss / points)
    rest = points - k - 1
    return (deviance + 2 * k + 2 * k * (k + 1) / rest if rest > 0 else math.nan), deviance + k * math.log(points)


def best_form(run: RunPoints) -> np.ndarray:
    """Accuracies of the form that describes a run best by AICc, shape (points,): its trend without its noise.

    Besides `FORMS`, a logistic curve in the logarithm of steps is tried, for runs that rise fast and then slowly.
    """
    steps = run.steps.astype(float)
    candidates = [(form, steps if form.of_steps else run.entropy) for form in FORMS.values()]
    candidates.append((FORMS["logistic-steps"], np.log1p(steps)))
    best, trend = math.inf, np.full(steps.size, run.accuracy.mean() if steps.size else math.nan)
    for form, x in candidates:
        fitted = fit_form(form, x, run.accuracy)
        if fitted is not None:
            predicted = fitted.predict(x)
            squares = max(float(((run.accuracy - predicted) ** 2).sum()), 1e-300)
            aicc = information_criteria(squares, x.size, form.parameters)[0]
            if aicc < best:
                best, trend = aicc, predicted
    return trend


def compare_forms(
    curves: pd.DataFrame, entropy_column: str = ENTROPY, accuracy_column: str = ACCURACY
) -> pd.DataFrame:
    """Fit every form to every run of curves.parquet: the columns of forms.parquet, one row per run and form.

    `rss` is the sum of squared residuals (fractions squared). `delta_aicc` and `weight` (Akaike) compare the
    forms of one run. Both take residuals for independent; neighbouring validations are not, which makes
    differences too large. `effective_points` is the number of points discounted for the autocorrelation of the
    run's least autocorrelated residuals (a form that misses the curve adds autocorrelation of its own), and the
    columns `*_effective` are computed from it: a rough correction, which is right to first order for AR(1)
    noise.

    `blocked_rmse` predicts each of five blocks of consecutive points from the other four, `extrapolation_rmse`
    the last block alone. Where a form cannot be fitted its row holds NaN and the `reason`. Raises ValueError as
    `law.points_by_run` does.
    """
    parts = [_of_run(run) for run in points_by_run(curves, entropy_column, accuracy_column)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=FORM_COLUMNS)


def _of_run(run: RunPoints) -> pd.DataFrame:
    rows = []
    for form in FORMS.values():
        x = (run.steps if form.of_steps else run.entropy).astype(float)
        row = {"form": form.name, "parameters": form.parameters, "points": x.size}
        fitted = fit_form(form, x, run.accuracy)
        if fitted is None:
            row["reason"] = _reason(form, x)
        else:
            residuals = run.accuracy - fitted.predict(x)
            row |= {
                "rss": float(residuals @ residuals),
                "autocorrelation": autocorrelation(residuals),
                "coefficients": fitted.coefficients(),
                **_left_out(form, x, run.accuracy),
            }
        rows.append(row)
    frame = pd.DataFrame(rows).reindex(columns=FORM_COLUMNS).assign(**run.identity)
    frame = frame.astype(dict.fromkeys(MEASURES, float))
    _compare(frame, run.accuracy)
    for row in frame[frame["reason"].notna()].itertuples():
        logger.warning("%s: %s not fitted: %s", run.identity["run"], row.form, row.reason)
    return frame[FORM_COLUMNS]


def _reason(form: Form, x: np.ndarray) -> str:
    if x.size <= form.parameters:
        return f"{x.size} points, at least {form.parameters + 1} are needed"
    if not np.ptp(x) > 0:
        return f"{'step' if form.of_steps else 'entropy'} is constant at {x[0]:.6g}"
    if form.positive and not (x > 0).all():
        return "an entropy is 0, which has no logarithm"
    return "no finite least-squares solution"


def _left_out(form: Form, x: np.ndarray, accuracy: np.ndarray) -> dict[str, float]:
    """Out-of-sample errors; NaN where a fit without one of the blocks is not determined."""
    errors = []
    for block in np.array_split(np.arange(x.size), BLOCKS):
        kept = np.setdiff1d(np.arange(x.size), block)
        fitted = fit_form(form, x[kept], accuracy[kept]) if block.size else None
        if fitted is None:
            return {"blocked_rmse": math.nan, "extrapolation_rmse": math.nan}
        errors.append(fitted.predict(x[block]) - accuracy[block])
    return {
        "blocked_rmse": math.sqrt(np.mean(np.concatenate(errors) ** 2)),
        "extrapolation_rmse": math.sqrt(np.mean(errors[-1] ** 2)),
    }


def _compare(frame: pd.DataFrame, accuracy: np.ndarray) -> None:
    """Fill in the columns that compare the forms of one run."""
    points = accuracy.size
    known = frame["rss"].notna()
    if not known.any():
        return
    # a perfect fit has no finite likelihood; rounding noise stands for it
    floor = points * (1e-12 * max(float(np.abs(accuracy).max()), 1e-12)) ** 2
    squares = frame.loc[known, "rss"].clip(lower=floor)
    least = frame["autocorrelation"].min()
    effective = effective_points(points, least if pd.notna(least) else math.nan, fitted=2)
    frame["effective_points"] = effective
    for count, suffix in ((points, ""), (effective, "_effective")):
        criteria = [
            information_criteria(rss * count / points, count, parameters)
            for rss, parameters in zip(squares, frame.loc[known, "parameters"], strict=True)
        ]
        aicc = pd.Series([value for value, _ in criteria], index=squares.index)
        if not suffix:
            frame.loc[known, "aicc"] = aicc
            frame.loc[known, "bic"] = [value for _, value in criteria]
        delta = aicc - aicc.min()
        likelihood = np.exp(-delta / 2)
        frame.loc[known, f"delta_aicc{suffix}"] = delta
        frame.loc[known, f"weight{suffix}"] = likelihood / likelihood.sum()
