"""Do interventions stay on the baseline's curve and below its ceiling, as a law of states would have it?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from entropy_mechanism.analysis.columns import BASELINE
from entropy_mechanism.analysis.forms import best_form
from entropy_mechanism.analysis.law import RunPoints, law, points_by_run
from entropy_mechanism.analysis.pooled import Pooled, fit_pooled
from entropy_mechanism.statistics import autoregressive_noise, generator, percentile_interval

MINIMUM_RUN_POINTS = 8
"""Points that an intervention and a baseline run need: then two are in the last quarter."""
MINIMUM_INSIDE = 2
"""Points of an intervention's last quarter that must lie within the baseline's entropies."""
MINIMUM_SEEDS = 3
"""Baseline runs from which the spread between seeds is estimated."""
ON, ABOVE, PASSED, BELOW, TOO_FEW = "on curve", "above curve", "above ceiling", "below curve", "not enough points"
CEILING_COLUMNS = [
    *("run", "model", "train_set", "method", "seed", "baseline", "baseline_runs"),
    *("baseline_a", "baseline_a_low", "baseline_a_high", "baseline_b", "baseline_b_low", "baseline_b_high"),
    *("baseline_ceiling", "baseline_ceiling_low", "baseline_ceiling_high"),
    *("baseline_residual", "baseline_excess", "seed_spread", "points", "share_in_range"),
    *("residual", "residual_low", "residual_high", "excess", "excess_low", "excess_high"),
    *("any_curve_residual", "any_curve_residual_low", "any_curve_residual_high"),
    *("passes_ceiling_at", "verdict"),
]


def ceiling_test(curves: pd.DataFrame, seed: int, resamples: int = 1000, baseline: str = BASELINE) -> pd.DataFrame:
    """Compare every run that is not the baseline's with the curve fitted to the baseline's runs.

    The curve R = -a exp(H) + b goes through the points of all baseline runs (seeds) of the same model and training
    set. Per run, accuracies being fractions:

    - `residual`: mean of R - curve(H) over the last quarter of the points, at the run's own entropies. Only points
      within the baseline's entropies count, `share_in_range` of them all: beyond, the curve is a guess, soon below
      an accuracy of 0;
    - `excess`: largest R less the ceiling b - a. The largest of many noisy values is too large; the interval
      allows for that, so it lies lower than the number;
    - `any_curve_residual`: as `residual`, from the best falling function of H of whatever form (isotonic
      regression) in place of the curve;
    - `passes_ceiling_at`: gradient steps at which R rises above the ceiling to stay above it on average;
    - `verdict`: `above ceiling` when the intervals of residual and excess are both above 0, `above curve` or
      `below curve` when that of the residual alone is on that side, else `on curve`; `not enough points` when
      the run or all baseline runs have fewer than eight, the baseline's entropy is constant or fewer than two
      points of the run's last quarter are within its range.

    Intervals are 95 % and hold the noise of the baseline and of the run: AR(1) noise around the form that
    describes each best (`forms.best_form`). With three baseline seeds or more they also hold the spread between
    seeds, with Student's t for so few (`seed_spread`, NaN otherwise).

    The verdict is about the curve as fitted. Where the baseline itself is not on its curve (`baseline_residual`,
    its own last quarter; `baseline_excess`, its own largest R less the ceiling) as much as the run is, the
    curve's form is at fault and not the run special: `any_curve_residual` tells.

    Raises ValueError as `law.points_by_run` does.
    """
    runs = list(points_by_run(curves))
    gradient_steps = curves.set_index(["run", "step"])["gradient_steps"]
    rows = []
    for run in runs:
        if run.identity["method"] == baseline:
            continue
        same = [other for other in runs if _is_baseline_of(other, run, baseline)]
        enough = [other for other in same if other.entropy.size >= MINIMUM_RUN_POINTS]
        trends = [best_form(other) for other in enough]
        draws = generator(seed, "ceiling", str(run.identity["run"]))
        fit = fit_pooled(enough, resamples, draws, trends)
        row = run.identity | {"baseline": baseline, "baseline_runs": len(enough), "points": run.entropy.size}
        row["verdict"] = TOO_FEW
        if not math.isnan(fit.a):
            row |= {f"baseline_{name}": value for name, value in (vars(fit) | fit.intervals()).items()}
            row |= {"baseline_ceiling": fit.ceiling, **_of_baseline(fit, enough)}
            if run.entropy.size >= MINIMUM_RUN_POINTS:
                row |= _compare(fit, enough, trends, run, row["seed_spread"], draws)
                above = _first_above(run, fit.ceiling)
                if above is not None:
                    row["passes_ceiling_at"] = float(gradient_steps[run.identity["run"], run.steps[above]])
        rows.append(row)
    return pd.DataFrame(rows, columns=CEILING_COLUMNS)


def _is_baseline_of(other: RunPoints, run: RunPoints, baseline: str) -> bool:
    same = all(other.identity[name] == run.identity[name] for name in ("model", "train_set"))
    return same and other.identity["method"] == baseline


def last_quarter(values: np.ndarray) -> np.ndarray:
    """The last quarter of a series along the last axis, one value at least; a view."""
    return values[..., -max(values.shape[-1] // 4, 1) :]


def _of_baseline(fit: Pooled, baseline: Sequence[RunPoints]) -> dict[str, float]:
    residuals = np.array([last_quarter(run.accuracy - law(run.entropy, fit.a, fit.b)).mean() for run in baseline])
    return {
        "baseline_residual": float(residuals.mean()),
        "baseline_excess": float(max(run.accuracy.max() for run in baseline)) - fit.ceiling,
        "seed_spread": float(residuals.std(ddof=1)) if residuals.size >= MINIMUM_SEEDS else math.nan,
    }


def _compare(
    fit: Pooled,
    baseline: Sequence[RunPoints],
    trends: Sequence[np.ndarray],
    run: RunPoints,
    seed_spread: float,
    draws: np.random.Generator,
) -> dict[str, Any]:
    """Distances from curve and ceiling with their intervals, and the verdict."""
    resamples = fit.a_replicates.size
    trend = best_form(run)
    noise = autoregressive_noise(run.accuracy - trend, resamples, draws)
    seeds = np.zeros(resamples)
    if not math.isnan(seed_spread):
        known = len(baseline)
        seeds = seed_spread * math.sqrt(1 + 1 / known) * draws.standard_t(known - 1, resamples)
    ceilings = fit.b_replicates - fit.a_replicates - fit.ceiling
    excess_errors = (trend + noise).max(axis=1) - trend.max() - ceilings + seeds
    found: dict[str, Any] = _with_interval("excess", float(run.accuracy.max() - fit.ceiling), excess_errors)

    entropies = np.concatenate([other.entropy for other in baseline])
    late = last_quarter(run.entropy)
    inside = (late >= entropies.min()) & (late <= entropies.max())
    found |= {"share_in_range": float(inside.mean()), "verdict": TOO_FEW}
    if inside.sum() < MINIMUM_INSIDE:
        return found
    entropy, level = late[inside], float(last_quarter(run.accuracy)[inside].mean())
    own_errors = last_quarter(noise)[:, inside].mean(axis=1) + seeds
    curve = law(entropy, fit.a, fit.b).mean()
    curves = law(entropy, fit.a_replicates[:, None], fit.b_replicates[:, None]).mean(axis=1)
    found |= _with_interval("residual", level - float(curve), own_errors - (curves - curve))
    measured, errors = _any_curve(baseline, trends, entropy, resamples, draws)
    found |= _with_interval("any_curve_residual", level - measured, own_errors - errors)
    return found | {"verdict": _verdict(found)}


def _with_interval(name: str, value: float, errors: np.ndarray) -> dict[str, float]:
    """A value and the 95 % interval of what it estimates, from draws of its error."""
    low, high = percentile_interval(errors)
    return {name: value, f"{name}_low": value - high, f"{name}_high": value - low}


def _verdict(found: Mapping[str, Any]) -> str:
    if found["residual_low"] > 0:
        return PASSED if found["excess_low"] > 0 else ABOVE
    return BELOW if found["residual_high"] < 0 else ON


def _any_curve(
    baseline: Sequence[RunPoints],
    trends: Sequence[np.ndarray],
    entropy: np.ndarray,
    resamples: int,
    draws: np.random.Generator,
) -> tuple[float, np.ndarray]:
    """Mean at `entropy` of the best falling function of the baseline's entropy, and draws of its error."""
    known = np.concatenate([other.entropy for other in baseline])
    order = np.argsort(known, kind="stable")

    def falling(accuracies: np.ndarray) -> float:
        fitted = isotonic_regression(accuracies[order], increasing=False).x
        return float(np.interp(entropy, known[order], fitted).mean())

    noise = np.hstack(
        [
            autoregressive_noise(other.accuracy - trend, resamples, draws)
            for other, trend in zip(baseline, trends, strict=True)
        ]
    )
    expected = np.concatenate(trends)
    replicates = np.array([falling(expected + one) for one in noise])
    return falling(np.concatenate([other.accuracy for other in baseline])), replicates - falling(expected)


def _first_above(run: RunPoints, ceiling: float) -> int | None:
    """Index of the first accuracy above the ceiling after which the mean of all that follow is above it too."""
    later = np.cumsum(run.accuracy[::-1])[::-1] / np.arange(run.accuracy.size, 0, -1)
    above = np.flatnonzero((run.accuracy > ceiling) & (later > ceiling))
    return int(above[0]) if above.size else None
