"""Do several methods share one curve R = -a exp(H) + b (Fig 6)? Tested, not only drawn."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from entropy_mechanism.analysis.forms import information_criteria
from entropy_mechanism.analysis.law import RunPoints, law, least_squares, points_by_run
from entropy_mechanism.analysis.pooled import fit_pooled
from entropy_mechanism.statistics import autocorrelation, autoregressive_noise, effective_points, generator

COMMON = "common"
MINIMUM_RUN_POINTS = 8
"""Points that a run needs to enter: fewer say nothing about the dependence of its noise."""
MINIMUM_RELABELLINGS = 100
"""Different ways to share the runs out to the methods that a permutation test needs to reach p = 0.01."""
MINIMUM_FREEDOM = 2
"""Runs beyond the first of each method from which the spread between seeds is estimated."""
LEVEL = 0.05
ONE, SEVERAL, TOO_FEW = "one curve", "several curves", "not enough points"
COMMON_LAW_COLUMNS = [
    *("model", "train_set", "method", "runs", "points"),
    *("a", "a_low", "a_high", "b", "b_low", "b_high", "ceiling", "ceiling_low", "ceiling_high", "rmse"),
    *("test", "statistic", "p", "delta_aicc", "verdict"),
]


def common_law(curves: pd.DataFrame, seed: int, resamples: int = 1000) -> pd.DataFrame:
    """Fit one curve to each method and one to all, by model and training set, and test whether one is enough.

    One row per (model, train_set, method) and one with method `common`; a method's runs (seeds) are pooled. The
    test's columns are the same on all rows of a group: `statistic` is F = ((RSS_common - RSS_separate) / (2m -
    2)) / (RSS_separate / (n - 2m)) for m methods and n points, whose tabulated distribution would take residuals
    for independent. Its distribution under one common curve is found by

    - `label permutation`, sharing the runs out to the methods at random, where every method has several runs and
      there are at least 100 ways to do so: differences between seeds of one method then count as noise;
    - `residual bootstrap` otherwise: AR(1) noise like each run's residuals from its method's curve is added to
      the common curve. Where the seeds of some methods tell how far runs of one method lie apart (two runs or
      more beyond the first of each), every run is shifted by as much, with Student's t: `residual and seed
      bootstrap`. Without, several curves may mean no more than several runs.

    `delta_aicc` is AICc of separate curves less that of one, from numbers of points discounted for
    autocorrelation: negative speaks for several. `verdict` is `several curves` for p < 0.05, else `one curve`,
    which says no more than that the data do not contradict it; `not enough points` with fewer than two methods
    of a run of eight points. Runs with fewer points or constant entropy are left out. Raises ValueError as
    `law.points_by_run` does.
    """
    usable = [run for run in points_by_run(curves) if _is_usable(run)]
    parts = []
    groups = curves[["model", "train_set", "method"]].drop_duplicates()
    for (model, train_set), rows in groups.groupby(["model", "train_set"], sort=False):
        mine = [run for run in usable if (run.identity["model"], run.identity["train_set"]) == (model, train_set)]
        draws = generator(seed, "common_law", model, train_set)
        by_method = {
            method: [run for run in mine if run.identity["method"] == method] for method in rows["method"]
        }
        pooled = {name: fit_pooled(runs, resamples, draws) for name, runs in {**by_method, COMMON: mine}.items()}
        tested = _test([runs for runs in by_method.values() if runs], resamples, draws)
        for name, fit in pooled.items():
            runs = mine if name == COMMON else by_method[name]
            parts.append(
                {"model": model, "train_set": train_set, "method": name, "runs": len(runs), "points": fit.points}
                | {"rmse": fit.rmse, **fit.intervals(), **tested}
            )
    return pd.DataFrame(parts, columns=COMMON_LAW_COLUMNS)


def _is_usable(run: RunPoints) -> bool:
    enough = run.entropy.size >= MINIMUM_RUN_POINTS
    return enough and not math.isnan(float(least_squares(run.entropy, run.accuracy)[0]))


def _test(methods: Sequence[Sequence[RunPoints]], resamples: int, draws: np.random.Generator) -> dict[str, Any]:
    if len(methods) < 2:
        return {"test": None, "statistic": math.nan, "p": math.nan, "delta_aicc": math.nan, "verdict": TOO_FEW}
    runs = [run for method in methods for run in method]
    labels = np.repeat(np.arange(len(methods)), [len(method) for method in methods])
    statistic, squares = _statistic(_sums(runs, [run.accuracy[None] for run in runs]), labels[None])
    sizes = [len(method) for method in methods]
    residuals = [_residuals(method) for method in methods]
    if min(sizes) > 1 and _relabellings(sizes) >= MINIMUM_RELABELLINGS:
        test = "label permutation"
        shuffled = draws.permuted(np.tile(labels, (resamples, 1)), axis=1)
        null, _ = _statistic(_sums(runs, [run.accuracy[None] for run in runs]), shuffled)
    else:
        shifts = _seed_shifts(residuals, resamples, draws)
        test = "residual bootstrap" if shifts is None else "residual and seed bootstrap"
        accuracies = _under_one_curve(runs, residuals, shifts, resamples, draws)
        null, _ = _statistic(_sums(runs, accuracies), labels[None])
    p = (1 + int((null >= statistic).sum())) / (1 + null.size)
    points = sum(run.entropy.size for run in runs)
    effective = sum(
        effective_points(part.size, autocorrelation(part), fitted=2) for method in residuals for part in method
    )
    common, separate = (
        information_criteria(max(rss, 1e-300) * effective / points, effective, parameters)[0]
        for rss, parameters in zip(squares, (2, 2 * len(methods)), strict=True)
    )
    return {
        "test": test,
        "statistic": float(statistic[0]),
        "p": p,
        "delta_aicc": separate - common,
        "verdict": SEVERAL if p < LEVEL else ONE,
    }


def _relabellings(sizes: list[int]) -> float:
    """Different ways to share runs out to groups of these sizes; groups of one size are interchangeable."""
    ways = math.factorial(sum(sizes)) / math.prod(math.factorial(size) for size in sizes)
    return ways / math.prod(math.factorial(len(list(same))) for _, same in groupby(sorted(sizes)))


def _residuals(method: Sequence[RunPoints]) -> list[np.ndarray]:
    """Residuals of a method's runs from their own curve."""
    a, b = least_squares(
        np.concatenate([run.entropy for run in method]), np.concatenate([run.accuracy for run in method])
    )
    return [run.accuracy - law(run.entropy, a, b) for run in method]


def _seed_shifts(
    residuals: Sequence[Sequence[np.ndarray]], resamples: int, draws: np.random.Generator
) -> np.ndarray | None:
    """Draws of how far runs lie from the mean of their method, shape (resamples, runs); None where too few
    tell."""
    means = [np.array([part.mean() for part in method]) for method in residuals]
    freedom = sum(method.size - 1 for method in means)
    if freedom < MINIMUM_FREEDOM:
        return None
    spread = math.sqrt(sum(float(((method - method.mean()) ** 2).sum()) for method in means) / freedom)
    return spread * draws.standard_t(freedom, (resamples, sum(method.size for method in means)))


def _under_one_curve(
    runs: Sequence[RunPoints],
    residuals: Sequence[Sequence[np.ndarray]],
    shifts: np.ndarray | None,
    resamples: int,
    draws: np.random.Generator,
) -> list[np.ndarray]:
    """Accuracies of every run, shape (resamples, points), as they would be if one curve were true."""
    a, b = least_squares(
        np.concatenate([run.entropy for run in runs]), np.concatenate([run.accuracy for run in runs])
    )
    accuracies = []
    for i, (run, part) in enumerate(zip(runs, (part for method in residuals for part in method), strict=True)):
        shift = 0.0 if shifts is None else shifts[:, i, None]
        accuracies.append(law(run.entropy, a, b) + shift + autoregressive_noise(part, resamples, draws))
    return accuracies


def _sums(runs: Sequence[RunPoints], accuracies: Sequence[np.ndarray]) -> np.ndarray:
    """What a line needs of each run: n and sums of x, y, xx, xy, yy; shape (replicates, runs, 6).

    x = exp(H) is taken from its mean over all runs and y from its own, so that squares lose no digits.
    """
    middle = np.concatenate([np.exp(run.entropy) for run in runs]).mean()
    height = np.concatenate([run.accuracy for run in runs]).mean()
    sums = []
    for run, accuracy in zip(runs, accuracies, strict=True):
        x, y = np.exp(run.entropy) - middle, accuracy - height
        one = np.ones(len(y))
        parts = (x.size * one, x.sum() * one, y.sum(axis=1), x @ x * one, y @ x, (y**2).sum(axis=1))
        sums.append(np.stack(parts, axis=-1))
    return np.stack(sums, axis=1)


def _squares(sums: np.ndarray) -> np.ndarray:
    """Sum of squared residuals of the line through points with these sums, shape (..., 6) -> (...)."""
    n, x, y, xx, xy, yy = np.moveaxis(sums, -1, 0)
    spread = xx - x**2 / n
    slope = np.where(spread > 0, (xy - x * y / n) / np.where(spread > 0, spread, 1), 0)
    return np.maximum(yy - y**2 / n - slope * (xy - x * y / n), 0)


def _statistic(sums: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """F of every replicate, and the sums of squares of one curve and of separate ones for the first.

    `sums` (replicates or 1, runs, 6) and `labels` (replicates or 1, runs) are broadcast against each other.
    """
    groups = int(labels.max()) + 1
    points = float(sums[0, :, 0].sum())
    common = _squares(sums.sum(axis=1))
    each = (_squares(np.where((labels == g)[..., None], sums, 0).sum(axis=1)) for g in range(groups))
    separate = sum(each, start=np.zeros_like(common))
    freedom = points - 2 * groups
    with np.errstate(divide="ignore", invalid="ignore"):
        f = np.nan_to_num((common - separate) / (2 * groups - 2) / (separate / freedom), nan=0.0, posinf=np.inf)
    return f, (float(common[0]), float(separate[0]))
