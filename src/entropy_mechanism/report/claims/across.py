"""The paper's claims about the coefficients of several runs: Section 2.5 and Appendix C, Fig 6, 7 and 13."""

import math
from collections.abc import Callable

import pandas as pd
from scipy import stats

from ...analysis.common_law import ONE, TOO_FEW
from ...figures import fig13, style
from .criteria import PERCENT, Claim, Criterion, Measure, above, at_least, below
from .evidence import IDENTITY, Estimate, Evidence, NotMeasured, fewest_seeds, share
from .law import CODE, MATH


def groups_of(evidence: Evidence) -> pd.DataFrame:
    """One row per model and training set with the test of the common law; those with too few points left out."""
    rows = evidence.table("common_law", ["model", "train_set", "method", "p", "verdict"])
    rows = rows.drop_duplicates(["model", "train_set"])
    rows = rows[rows["verdict"] != TOO_FEW]
    if rows.empty:
        raise NotMeasured("too few points, or fewer than two algorithms, to compare their curves")
    return rows


def _one_curve(evidence: Evidence) -> Estimate:
    rows = groups_of(evidence)
    found = share(rows, rows["verdict"] == ONE, "group of runs")
    seeds = _seeds_of(evidence, ("fig06", "common_law"))
    basis = f"{found.basis}, smallest p {rows['p'].min():.2g}"
    return Estimate(found.value, found.low, found.high, found.runs, seeds, basis)


def _seeds_of(evidence: Evidence, items: tuple[str, ...], task: str | None = None) -> int:
    names = {run for name in items for run in evidence.shown.get(name, ())}
    runs = evidence.table("runs", [*IDENTITY, "task"])
    runs = runs if task is None else runs[runs["task"] == task]
    return fewest_seeds(runs[runs["run"].isin(names)])


_SIZE_COLUMNS = ("slope", "slope_low", "slope_high", "left_out_error", "left_out_error_of_mean")


def _sizes(evidence: Evidence, coefficient: str, task: str, kind: str = "size_law") -> pd.DataFrame:
    """The size law of one coefficient on a task: one row per model."""
    rows = evidence.table(kind, ["task", "coefficient", "model", *_SIZE_COLUMNS])
    rows = rows[(rows["coefficient"] == coefficient) & (rows["task"] == task)]
    rows = rows.dropna(subset=["slope"]).drop_duplicates("model")
    if rows.empty:
        raise NotMeasured(f"too few model sizes to fit {coefficient} on {task}")
    return rows


def _slope(coefficient: str, task: str) -> Measure:
    def measure(evidence: Evidence) -> Estimate:
        rows = _sizes(evidence, coefficient, task)
        value, low, high = (float(rows[name].iloc[0]) for name in ("slope", "slope_low", "slope_high"))
        seeds = _seeds_of(evidence, ("fig07",), task)
        return Estimate(value, low, high, len(rows), seeds, f"{len(rows)} sizes")

    return measure


def _explained(rows: pd.DataFrame) -> float:
    """1 - squared errors of predicting each size from the others, over those of predicting the others' mean."""
    errors, of_mean = (rows[name].to_numpy(float) for name in ("left_out_error", "left_out_error_of_mean"))
    return float(1 - (errors**2).sum() / (of_mean**2).sum())


def _left_out(coefficient: str, task: str) -> Measure:
    def measure(evidence: Evidence) -> Estimate:
        rows = _sizes(evidence, coefficient, task)
        seeds = _seeds_of(evidence, ("fig07",), task)
        return Estimate(_explained(rows), runs=len(rows), seeds=seeds, basis=f"{len(rows)} sizes")

    return measure


def _published_slope(coefficient: str, task: str) -> Callable[[Evidence], float]:
    return lambda evidence: float(_sizes(evidence, coefficient, task, "published_size_law")["slope"].iloc[0])


def _published_left_out(coefficient: str, task: str) -> Callable[[Evidence], float]:
    return lambda evidence: _explained(_sizes(evidence, coefficient, task, "published_size_law"))


def _heterogeneity(coefficient: str) -> Measure:
    """p-value of equal coefficients on all training sets of the model of Fig 13, its runs being seeds of them.

    The variance of a run is that of its fit, from its interval, and that between seeds, which the sets with
    several seeds tell: with it Cochran's Q over the sets, by its degrees of freedom, is distributed nearly as F.
    The interval of p has that variance at the ends of its own interval, so that it crosses the bound where the
    result hangs on how well that is known. Without several seeds anywhere p takes two seeds for two training sets,
    and there is no interval.
    """

    def measure(evidence: Evidence) -> Estimate:
        names = [coefficient, f"{coefficient}_low", f"{coefficient}_high"]
        rows = evidence.table("law", [*IDENTITY, *names], ("fig13",)).dropna(subset=names)
        runs = evidence.table("runs", ["run", "model", "task", "non_embedding_parameters"])
        curves = evidence.table("curves", [*IDENTITY, "step", style.ENTROPY, style.ACCURACY])
        rows = rows[rows["run"].isin(fig13.points({"runs": runs, "curves": curves})["run"])]
        rows = rows.assign(error=(rows[names[2]] - rows[names[1]]) / (2 * 1.96))
        rows = rows[rows["error"] > 0]
        if rows["train_set"].nunique() < 2:
            raise NotMeasured("fewer than two training sets with a fit and its interval")
        value, low, high = _p_of_equal(rows["train_set"], rows[coefficient], rows["error"])
        means = rows.groupby("train_set")[coefficient].mean()
        basis = f"{len(means)} training sets, {coefficient} from {means.min():.2f} to {means.max():.2f}"
        return Estimate(value, low, high, len(rows), fewest_seeds(rows), basis)

    return measure


def _p_of_equal(sets: pd.Series, values: pd.Series, errors: pd.Series) -> tuple[float, float, float]:
    """p-value of equal means of all sets, and its lowest and highest for the variance between seeds (or NaN)."""
    grouped = values.groupby(sets)
    freedom, above = len(values) - grouped.ngroups, grouped.ngroups - 1
    several = grouped.transform("size") > 1
    found = float(((values - grouped.transform("mean")) ** 2).sum()) / freedom if freedom else 0.0
    of_fits = float((errors[several] ** 2).mean()) if freedom else 0.0

    def statistic(scale: float) -> float:
        weights = 1 / (errors**2 + max(0.0, scale * found - of_fits))
        weight = weights.groupby(sets).sum()
        centres = (weights * values).groupby(sets).sum() / weight
        return float((weight * (centres - (weight * centres).sum() / weight.sum()) ** 2).sum())

    if not freedom:
        return float(stats.chi2.sf(statistic(1), above)), math.nan, math.nan
    p = float(stats.f.sf(statistic(1) / above, above, freedom))
    ends = [freedom / stats.chi2.ppf(level, freedom) for level in (0.975, 0.025)]
    low, high = (float(stats.chi2.sf(statistic(scale), above)) for scale in ends)
    return p, min(low, p), max(high, p)


CLAIMS = (
    Claim(
        key="algorithm",
        statement="a and b do not depend on the algorithm: one curve for GRPO, RLOO, REINFORCE++ and PRIME",
        source="Fig 6, Section 2.5",
        items=("fig06", "common_law"),
        criteria=(
            Criterion(
                "share of comparisons that find one curve",
                above(0.5),
                _one_curve,
                "one curve drawn, no test",
                PERCENT,
            ),
        ),
    ),
    Claim(
        key="size",
        statement="a and b grow linearly with the logarithm of model size, so that larger models are predictable",
        source="Fig 7, Section 2.5; published numbers: our reading of Fig 1",
        items=("fig07",),
        criteria=(
            *(
                Criterion(
                    f"slope of {name} per unit of ln parameters, {task}",
                    above(0),
                    _slope(name, task),
                    _published_slope(name, task),
                )
                for task in (MATH, CODE)
                for name in "ab"
            ),
            *(
                Criterion(
                    f"variance of {name} at a size that is explained by the others, {task}",
                    at_least(0.5),
                    _left_out(name, task),
                    _published_left_out(name, task),
                    PERCENT,
                )
                for task in (MATH, CODE)
                for name in "ab"
            ),
        ),
    ),
    Claim(
        key="data",
        statement="a and b depend on the training data",
        source="Fig 13, Appendix C",
        items=("fig13",),
        criteria=(
            Criterion("p of equal a on all training sets", below(0.05), _heterogeneity("a"), "drawn, no test"),
            Criterion("p of equal b on all training sets", below(0.05), _heterogeneity("b"), "drawn, no test"),
        ),
    ),
)
