"""Resampling shared by the analyses: noise and blocks along a run, cluster bootstrap over problems."""

import hashlib
import math

import numpy as np
from scipy.signal import lfilter

MAXIMUM_INDICES = 4_000_000
"""Bootstrap indices held in memory at once."""


def generator(seed: int, *labels: str) -> np.random.Generator:
    """Return a generator for `seed` and `labels`, such as a run or a benchmark.

    Every label has a stream of its own, so adding or leaving out one run changes no other run's interval, and
    two policies scored on one benchmark are resampled alike (a paired bootstrap).
    """
    digest = hashlib.sha256("\x00".join(labels).encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8])])


def default_block_length(points: int) -> int:
    """Return ceil(sqrt(points)).

    On curves shaped like a training run (15 to 75 points, AR(1) noise) intervals from blocks of this length
    cover more often than those from the asymptotic n^(1/3), and lose nothing where the noise is independent.
    """
    return math.isqrt(points - 1) + 1


def moving_block_indices(
    points: int, resamples: int, generator: np.random.Generator, block_length: int | None = None
) -> np.ndarray:
    """Draw moving-block bootstrap resamples of an ordered series (Künsch 1989).

    Blocks of `block_length` consecutive points (default `default_block_length`) start at uniformly drawn
    places and are joined and cut to `points`. Blocks do not wrap around: the end of a training run is not
    followed by its beginning. Returns integers, shape (resamples, points).

    Raises ValueError for a block longer than the series or an empty series.
    """
    if points < 1:
        raise ValueError(f"a bootstrap needs at least one point, found {points}")
    length = default_block_length(points) if block_length is None else block_length
    if not 1 <= length <= points:
        raise ValueError(f"block_length is {length}, allowed are 1 to the number of points, {points}")
    starts = generator.integers(0, points - length + 1, size=(resamples, -(-points // length)))
    return (starts[:, :, None] + np.arange(length)).reshape(resamples, -1)[:, :points]


def cluster_bootstrap_means(values: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Return the means of `resamples` bootstrap resamples of per-cluster `values`, shape (resamples,).

    A cluster is a problem and its value the mean over that problem's samples: samples of one problem are not
    independent, so problems are drawn, with all their samples. Raises ValueError without any cluster.
    """
    clusters = len(values)
    if clusters < 1:
        raise ValueError("a bootstrap over problems needs at least one problem, found none")
    rows = max(1, MAXIMUM_INDICES // clusters)
    means = [
        values[generator.integers(0, clusters, size=(min(rows, resamples - done), clusters))].mean(axis=1)
        for done in range(0, resamples, rows)
    ]
    return np.concatenate(means) if means else np.empty(0)


def percentile_interval(replicates: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the central percentile interval of bootstrap `replicates`, shape (resamples,).

    Replicates that are NaN (a resample on which the statistic is undefined) are left out; (NaN, NaN) when
    none is left. Raises ValueError unless 0 < level < 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, allowed is a number between 0 and 1")
    replicates = replicates[np.isfinite(replicates)]
    if replicates.size == 0:
        return math.nan, math.nan
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def autocorrelation(residuals: np.ndarray) -> float:
    """Return the lag-1 autocorrelation of an ordered series, shape (points,).

    NaN for fewer than three values or a constant one.
    """
    centred = np.asarray(residuals, dtype=float) - np.mean(residuals) if len(residuals) else np.empty(0)
    squares = float(centred @ centred)
    if centred.size < 3 or not squares > 0:
        return math.nan
    return float(centred[1:] @ centred[:-1]) / squares


def persistence(points: int, autocorrelation: float, fitted: int = 1) -> float:
    """Return the AR(1) coefficient that a lag-1 `autocorrelation` of `points` residuals speaks for, in 0 to 0.95.

    Fitting makes residuals look less persistent than the noise was: with `fitted` coefficients the autocorrelation
    is on average too small by about ((1 + k) + (2 + 2k) ρ) / n. For a mean (k = 1) that is nearly Kendall's (1954)
    bias; for curves it was chosen by simulation, see docs/law.md. A negative autocorrelation, an unknown one (NaN)
    and one of no more than 3 + 2k points count as none.
    """
    rest = points - 2 - 2 * fitted
    if math.isnan(autocorrelation) or rest <= 1:
        return 0.0
    return min(max((points * autocorrelation + 1 + fitted) / rest, 0.0), 0.95)


def effective_points(points: int, autocorrelation: float, fitted: int = 1) -> float:
    """Return how many independent points say as much of a mean as `points` of an AR(1) series: n (1-ρ)/(1+ρ)."""
    rho = persistence(points, autocorrelation, fitted)
    return points * (1 - rho) / (1 + rho)


def autoregressive_noise(
    residuals: np.ndarray, resamples: int, generator: np.random.Generator, fitted: int = 2
) -> np.ndarray:
    """Draw series of AR(1) noise like the `residuals` of a fit with `fitted` coefficients.

    The AR(1) coefficient is their `persistence`; innovations are drawn from theirs. The standard deviation is
    that of the residuals, enlarged by what the fit took: k (1+ρ)/(1-ρ) degrees of freedom of n, at most three
    quarters. For intervals of coefficients this covers better than blocks where few early points carry the
    slope, as in training curves, because no resample lacks them; both rest on noise that is stationary. Returns
    shape (resamples, points), zeros for fewer than two residuals or constant ones.
    """
    points = residuals.size
    if points < 2:
        return np.zeros((resamples, points))
    rho = persistence(points, autocorrelation(residuals), fitted)
    centred = residuals - residuals.mean()
    freedom = max(points - fitted * (1 + rho) / (1 - rho), points / 4)
    spread = math.sqrt(float(centred @ centred) / freedom)
    innovations = centred[1:] - rho * centred[:-1]
    innovations = innovations - innovations.mean()
    deviation = innovations.std()
    if not (spread > 0 and deviation > 0):
        return np.zeros((resamples, points))
    settled = 20 + math.ceil(3 / (1 - rho))  # draws after which the first one no longer matters
    draws = generator.choice(innovations / deviation, (resamples, settled + points))
    series = lfilter([1.0], [1.0, -rho], draws, axis=1)[:, settled:]
    return series * (spread * math.sqrt(1 - rho**2))
