"""Do interventions stay on the baseline's curve and below its ceiling, as a law of states would have it?"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from entropy_mechanism.analysis.forms import best_form
from entropy_mechanism.analysis.law import BASELINE, RunPoints, law, points_by_run
from entropy_mechanism.analysis.pooled import Pooled, fit_pooled
from entropy_mechanism.statistics import autoregressive_noise, generator, percentile_interval

MINIMUM_RUN_POINTS = 8
"""Points that an intervention and a baseline run need: then two are in the last quarter."""
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

    - `residual`: mean of R - curve(H) over the last quarter of the points, at the run's own entropies;
      `share_in_range` of these lie within the baseline's entropies, elsewhere the curve is continued;
    - `excess`: largest R less the ceiling b - a. The largest of many noisy values is too large; the interval
      allows for that, so it lies lower than the number;
    - `any_curve_residual`: as `residual`, from the best falling function of H of whatever form (isotonic
      regression) in place of the curve, over the points in range; NaN when fewer than two are;
    - `passes_ceiling_at`: gradient steps at which R rises above the ceiling to stay above it on average;
    - `verdict`: `above ceiling` when the intervals of residual and excess are both above 0, `above curve` or
      `below curve` when that of the residual alone is on that side, else `on curve`; `not enough points` when the
      run or all baseline runs have fewer than eight or the baseline's entropy is constant.

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


def _last_quarter(values: np.ndarray) -> np.ndarray:
    return values[..., -max(values.shape[-1] // 4, 1) :]


def _residual(run: RunPoints, a: float, b: float) -> float:
    """Mean of R - curve(H) over the last quarter."""
    return float(_last_quarter(run.accuracy - law(run.entropy, a, b)).mean())


def _of_baseline(fit: Pooled, baseline: Sequence[RunPoints]) -> dict[str, float]:
    residuals = np.array([_residual(run, fit.a, fit.b) for run in baseline])
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
) -> dict[str, object]:
    resamples = fit.a_replicates.size
    trend = best_form(run)
    noise = autoregressive_noise(run.accuracy - trend, resamples, draws)
    seeds = np.zeros(resamples)
    if not math.isnan(seed_spread):
        known = len(baseline)
        seeds = seed_spread * math.sqrt(1 + 1 / known) * draws.standard_t(known - 1, resamples)
    entropy = _last_quarter(run.entropy)
    curves = law(entropy, fit.a_replicates[:, None], fit.b_replicates[:, None]) - law(entropy, fit.a, fit.b)
    residual_errors = _last_quarter(noise).mean(axis=1) - curves.mean(axis=1) + seeds
    residual = _with_interval("residual", _residual(run, fit.a, fit.b), residual_errors)
    ceilings = fit.b_replicates - fit.a_replicates - fit.ceiling
    excess_errors = (trend + noise).max(axis=1) - trend.max() - ceilings + seeds
    excess = _with_interval("excess", float(run.accuracy.max() - fit.ceiling), excess_errors)
    verdict = BELOW if residual["residual_high"] < 0 else ON
    if residual["residual_low"] > 0:
        verdict = PASSED if excess["excess_low"] > 0 else ABOVE
    found = {**residual, **excess, "verdict": verdict}
    return found | _any_curve(baseline, trends, run, _last_quarter(noise), seeds, draws)


def _with_interval(name: str, value: float, errors: np.ndarray) -> dict[str, float]:
    """A value and the 95 % interval of what it estimates, from draws of its error."""
    low, high = percentile_interval(errors)
    return {name: value, f"{name}_low": value - high, f"{name}_high": value - low}


def _any_curve(
    baseline: Sequence[RunPoints],
    trends: Sequence[np.ndarray],
    run: RunPoints,
    noise: np.ndarray,
    seeds: np.ndarray,
    draws: np.random.Generator,
) -> dict[str, float]:
    """The residual from the best falling function of the baseline's entropy; `noise` is of the last quarter."""
    known = np.concatenate([other.entropy for other in baseline])
    order = np.argsort(known, kind="stable")
    entropy, accuracy = _last_quarter(run.entropy), _last_quarter(run.accuracy)
    inside = (entropy >= known.min()) & (entropy <= known.max())
    share = {"share_in_range": float(inside.mean())}
    if inside.sum() < 2:
        return share

    def falling(accuracies: np.ndarray) -> float:
        fitted = isotonic_regression(accuracies[order], increasing=False).x
        return float(np.interp(entropy[inside], known[order], fitted).mean())

    measured, expected = np.concatenate([other.accuracy for other in baseline]), np.concatenate(trends)
    disturbed = np.hstack(
        [
            autoregressive_noise(other.accuracy - trend, noise.shape[0], draws)
            for other, trend in zip(baseline, trends, strict=True)
        ]
    )
    centre = falling(expected)
    functions = np.array([falling(expected + one) for one in disturbed]) - centre
    errors = noise[:, inside].mean(axis=1) - functions + seeds
    value = float(accuracy[inside].mean()) - falling(measured)
    return share | _with_interval("any_curve_residual", value, errors)


def _first_above(run: RunPoints, ceiling: float) -> int | None:
    """Index of the first accuracy above the ceiling after which the mean of all that follow is above it too."""
    later = np.cumsum(run.accuracy[::-1])[::-1] / np.arange(run.accuracy.size, 0, -1)
    above = np.flatnonzero((run.accuracy > ceiling) & (later > ceiling))
    return int(above[0]) if above.size else None
