"""Do interventions stay on the baseline's curve and below its ceiling, as a law of states would have it?"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from entropy_mechanism.analysis.forms import FORMS, fit_form
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
    *("baseline_residual", "baseline_accuracy_max", "seed_spread", "points", "share_in_range"),
    *("residual", "residual_low", "residual_high", "excess", "excess_low", "excess_high"),
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
    - `passes_ceiling_at`: gradient steps at which R rises above the ceiling to stay above it on average;
    - `verdict`: `above ceiling` when the intervals of residual and excess are both above 0, `above curve` or
      `below curve` when that of the residual alone is on that side, else `on curve`; `not enough points` when
      the run or all baseline runs have fewer than eight or the baseline's entropy is constant.

    Intervals are 95 % and hold the baseline's noise and the run's own, both as AR(1) noise around a trend (the
    curve for the baseline, a logistic curve in steps for the run). With three baseline seeds or more they also
    hold the spread between seeds, with Student's t for so few (`seed_spread`, NaN otherwise).
    `baseline_residual` is what the baseline itself, its last quarter, deviates from its curve: the curve's own
    misfit, which no interval holds.

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
        draws = generator(seed, "ceiling", str(run.identity["run"]))
        fit = fit_pooled(enough, resamples, draws)
        row = run.identity | {"baseline": baseline, "baseline_runs": len(enough), "points": run.entropy.size}
        row["verdict"] = TOO_FEW
        if not math.isnan(fit.a):
            row |= {f"baseline_{name}": value for name, value in (vars(fit) | fit.intervals()).items()}
            row |= {"baseline_ceiling": fit.ceiling, **_of_baseline(fit, enough)}
            if run.entropy.size >= MINIMUM_RUN_POINTS:
                row |= _compare(fit, enough, run, row["seed_spread"], resamples, draws)
                above = _first_above(run, fit.ceiling)
                row["passes_ceiling_at"] = (
                    math.nan if above is None else float(gradient_steps[run.identity["run"], run.steps[above]])
                )
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
        "baseline_accuracy_max": float(max(run.accuracy.max() for run in baseline)),
        "seed_spread": float(residuals.std(ddof=1)) if residuals.size >= MINIMUM_SEEDS else math.nan,
    }


def _trend(run: RunPoints) -> np.ndarray:
    """The run's accuracies without their noise: a logistic curve in steps, or a straight line."""
    steps = run.steps.astype(float)
    for name in ("logistic-steps", "linear"):
        fitted = fit_form(FORMS[name], steps, run.accuracy)
        if fitted:
            return fitted.predict(steps)
    return np.full(steps.size, run.accuracy.mean())


def _compare(
    fit: Pooled,
    baseline: Sequence[RunPoints],
    run: RunPoints,
    seed_spread: float,
    resamples: int,
    draws: np.random.Generator,
) -> dict[str, object]:
    trend = _trend(run)
    noise = autoregressive_noise(run.accuracy - trend, resamples, draws, lost=4)
    errors = np.zeros(resamples)
    if not math.isnan(seed_spread):
        seeds = len(baseline)
        errors = seed_spread * math.sqrt(1 + 1 / seeds) * draws.standard_t(seeds - 1, resamples)
    residual = _residual(run, fit.a, fit.b)
    entropy = _last_quarter(run.entropy)
    curves = law(entropy, fit.a_replicates[:, None], fit.b_replicates[:, None]) - law(entropy, fit.a, fit.b)
    residual_errors = _last_quarter(noise).mean(axis=1) - curves.mean(axis=1) + errors
    excess = float(run.accuracy.max() - fit.ceiling)
    ceilings = fit.b_replicates - fit.a_replicates - fit.ceiling
    excess_errors = (trend + noise).max(axis=1) - trend.max() - ceilings + errors
    residual_low, residual_high = _basic(residual, residual_errors)
    excess_low, excess_high = _basic(excess, excess_errors)
    verdict = BELOW if residual_high < 0 else ON
    if residual_low > 0:
        verdict = PASSED if excess_low > 0 else ABOVE
    known = np.concatenate([other.entropy for other in baseline])
    return {
        "share_in_range": float(((entropy >= known.min()) & (entropy <= known.max())).mean()),
        "residual": residual,
        "residual_low": residual_low,
        "residual_high": residual_high,
        "excess": excess,
        "excess_low": excess_low,
        "excess_high": excess_high,
        "verdict": verdict,
    }


def _basic(value: float, errors: np.ndarray) -> tuple[float, float]:
    """95 % interval of what `value` estimates, from draws of its error."""
    low, high = percentile_interval(errors)
    return value - high, value - low


def _first_above(run: RunPoints, ceiling: float) -> int | None:
    """Index of the first accuracy above the ceiling after which the mean of all that follow is above it too."""
    later = np.cumsum(run.accuracy[::-1])[::-1] / np.arange(run.accuracy.size, 0, -1)
    above = np.flatnonzero((run.accuracy > ceiling) & (later > ceiling))
    return int(above[0]) if above.size else None
