"""One curve through the points of several runs, and how sure it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from entropy_mechanism.analysis.law import MINIMUM_POINTS, RunPoints, law, least_squares
from entropy_mechanism.statistics import autoregressive_noise, percentile_interval


@dataclass(frozen=True)
class Pooled:
    """R = -a exp(H) + b through the points of several runs, NaN without a fit; replicates: shape (resamples,)."""

    a: float
    b: float
    rmse: float
    points: int
    a_replicates: np.ndarray
    b_replicates: np.ndarray

    @property
    def ceiling(self) -> float:
        """The curve at H = 0."""
        return self.b - self.a

    def intervals(self) -> dict[str, float]:
        """a, b and ceiling, each with `_low` and `_high` of its 95 % percentile interval."""
        replicates = {
            "a": self.a_replicates,
            "b": self.b_replicates,
            "ceiling": self.b_replicates - self.a_replicates,
        }
        values = {"a": self.a, "b": self.b, "ceiling": self.ceiling}
        for name, draws in replicates.items():
            values[f"{name}_low"], values[f"{name}_high"] = percentile_interval(draws)
        return values


def fit_pooled(
    runs: Sequence[RunPoints],
    resamples: int,
    generator: np.random.Generator,
    trends: Sequence[np.ndarray] | None = None,
) -> Pooled:
    """Fit one curve to all points of `runs`, points weighing alike.

    The replicates add AR(1) noise to the fitted accuracies, run by run, so they know that neighbouring
    validations share their noise; they do not know what another seed would have done. The noise is like each
    run's residuals from the curve, which takes the curve for true and its misfit for persistent noise. With
    `trends`, accuracies of each run without its noise, it is like the residuals from those: the replicates then
    tell how well the coefficients of the best such curve are known, whether it fits or not.
    """
    entropy = np.concatenate([run.entropy for run in runs]) if runs else np.empty(0)
    accuracy = np.concatenate([run.accuracy for run in runs]) if runs else np.empty(0)
    a = b = rmse = math.nan
    a_replicates = b_replicates = np.full(resamples, math.nan)
    if entropy.size >= MINIMUM_POINTS:
        a, b = (float(value) for value in least_squares(entropy, accuracy))
    if not math.isnan(a):
        fitted = [law(run.entropy, a, b) for run in runs]
        rmse = math.sqrt(float(((accuracy - np.concatenate(fitted)) ** 2).mean()))
        residuals = [run.accuracy - trend for run, trend in zip(runs, trends or fitted, strict=True)]
        noise = np.hstack([autoregressive_noise(part, resamples, generator) for part in residuals])
        a_replicates, b_replicates = least_squares(entropy, np.concatenate(fitted) + noise)
    return Pooled(a, b, rmse, entropy.size, a_replicates, b_replicates)
