"""The paper's claims about entropy and accuracy: Sections 1 and 2, Fig 1 to 5 and 14."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ...figures import fig02, fig05, published, style
from .criteria import PERCENT, PLAIN, POINTS, Claim, Criterion, Measure, above, at_least, at_most
from .evidence import IDENTITY, Estimate, Evidence, NotMeasured, exponential, mean, of_settings, share

MATH, CODE = "math", "code"


def _entropy_left(evidence: Evidence) -> Estimate:
    ends = evidence.ends_of(("fig01",), style.BASELINE)
    ends = ends[(ends["entropy_end"] > 0) & (ends["entropy_first"] > 0)]
    return exponential(
        of_settings(ends.assign(value=np.log(ends["entropy_end"] / ends["entropy_first"])), "value")
    )


def _gain(evidence: Evidence) -> Estimate:
    ends = evidence.ends_of(("fig01",), style.BASELINE)
    return of_settings(ends.assign(value=ends["accuracy_end"] - ends["accuracy_first"]), "value")


def _exchange(evidence: Evidence) -> Estimate:
    """Rank correlation of entropy and accuracy over the validations of a run, averaged as `of_settings` says."""
    columns = [*IDENTITY, style.ENTROPY, style.ACCURACY]
    curves = style.of_method(evidence.table("curves", columns, ("fig01",)))
    points = curves.dropna(subset=[style.ENTROPY, style.ACCURACY])
    rows = [
        {**run[IDENTITY].iloc[0], "value": _rank_correlation(run[style.ENTROPY], run[style.ACCURACY])}
        for _, run in points.groupby("run")
    ]
    if not rows:
        raise NotMeasured("no GRPO run was validated")
    return of_settings(pd.DataFrame(rows), "value")


def _rank_correlation(x: pd.Series, y: pd.Series) -> float:
    if len(x) < 3 or x.nunique() < 2 or y.nunique() < 2:
        return math.nan
    return float(stats.spearmanr(x.astype(float), y.astype(float)).statistic)


def _published_exchange(_: Evidence) -> float:
    dots = published.load("fig01_right_qwen2.5")
    found = [_rank_correlation(d["entropy"], d["accuracy_percent"]) for _, d in dots.groupby("model")]
    return float(np.nanmean(found))


def _consumed(column: str, fraction: float) -> Measure:
    def measure(evidence: Evidence) -> Estimate:
        rows = style.of_method(
            evidence.table("consumption", ["run", "model", "seed", "fraction", column], ("fig02",))
        )
        rows = rows[np.isclose(rows["fraction"].astype(float), fraction, rtol=0, atol=1e-6)]
        sets = evidence.table("runs", ["run", "train_set"]).drop_duplicates("run").set_index("run")["train_set"]
        return of_settings(rows.assign(train_set=rows["run"].map(sets).fillna("")), column)

    return measure


def _law(evidence: Evidence, items: tuple[str, ...]) -> pd.DataFrame:
    rows = style.of_method(evidence.table("law", [*IDENTITY, "a", "a_low", "a_high", "r2", "rmse"], items))
    rows = rows.dropna(subset=["a"])
    if rows.empty:
        raise NotMeasured("no GRPO run has enough points for a fit")
    return rows


def _fit(column: str, *items: str) -> Measure:
    return lambda evidence: mean(_law(evidence, items), column)


def _positive_slope(*items: str) -> Measure:
    def measure(evidence: Evidence) -> Estimate:
        rows = _law(evidence, items)
        return share(rows, rows["a_low"] > 0, exact=True)

    return measure


DOTS = "fig01 dots"
"""The series of published_law.parquet that holds fits of the dots read off Fig 1, Qwen2.5 on math."""


def _published_fit(column: str) -> Callable[[Evidence], float]:
    def value(evidence: Evidence) -> float:
        fits = evidence.table("published_law", ["series", column])
        return float(fits.loc[fits["series"] == DOTS, column].astype(float).mean())

    return value


_LAW_FORECAST: dict[str, Any] = {
    "fraction": fig05.FRACTION,
    "predictor": "exponential",
    "direction": "forward",
}
_NAIVE_FORECAST = _LAW_FORECAST | {"predictor": "last-value"}


def forecasts(
    evidence: Evidence, items: tuple[str, ...] = (), kind: str = "forecasts", **wanted: Any
) -> pd.DataFrame:
    """GRPO's rows of a frame of forecasts with the given values of fraction, predictor and direction."""
    columns = ["run", "model", "method", "seed", "fraction", "predictor", "direction", "rmse", "final_error"]
    rows = style.of_method(evidence.table(kind, columns, items))
    for name, value in wanted.items():
        same = (
            np.isclose(rows[name].astype(float), value, atol=1e-6) if name == "fraction" else rows[name] == value
        )
        rows = rows[same]
    return rows


def _of_task(evidence: Evidence, rows: pd.DataFrame, task: str) -> pd.DataFrame:
    runs = evidence.table("runs", ["run", "task"])
    rows = rows[rows["run"].isin(runs.loc[runs["task"] == task, "run"])]
    if rows.empty:
        raise NotMeasured(f"no GRPO run on {task}")
    return rows


def _forecast(column: str, task: str) -> Measure:
    def measure(evidence: Evidence) -> Estimate:
        rows = _of_task(evidence, forecasts(evidence, ("fig05",), **_LAW_FORECAST), task)
        return mean(rows, rows[column].abs())

    return measure


def both_errors(
    evidence: Evidence, kind: str, one: dict[str, Any], other: dict[str, Any], items: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Runs that have two forecasts: the error of the first as `rmse`, that of the second as `other`."""
    errors = [forecasts(evidence, items, kind, **wanted).set_index("run") for wanted in (one, other)]
    both = errors[0].join(errors[1]["rmse"].rename("other"), how="inner").dropna(subset=["rmse", "other"])
    if both.empty:
        raise NotMeasured("no GRPO run has both forecasts")
    return both.reset_index()


def _over_last_value(evidence: Evidence) -> Estimate:
    """How much smaller the error is than that of going on with the last accuracy seen."""
    both = both_errors(evidence, "forecasts", _LAW_FORECAST, _NAIVE_FORECAST, ("fig05",))
    return mean(both, both["other"] - both["rmse"])


def _published_over_last_value(evidence: Evidence) -> float:
    both = both_errors(evidence, "published_forecasts", _LAW_FORECAST, _NAIVE_FORECAST)
    return float((both["other"] - both["rmse"]).mean())


_ENTROPY, _REACHED = "entropy_left", "accuracy_reached"

CLAIMS = (
    Claim(
        key="bought",
        statement="Performance is bought with entropy: accuracy rises while entropy is used up",
        source="Fig 1, Section 1",
        items=("fig01",),
        criteria=(
            Criterion("entropy at the end, of its start", at_most(0.5), _entropy_left, 0.02 / 0.54, PERCENT),
            Criterion("accuracy at the end less accuracy at the start", above(0), _gain, 0.385 - 0.215, POINTS),
            Criterion("rank correlation of the two over a run", at_most(-0.8), _exchange, _published_exchange),
        ),
    ),
    Claim(
        key="early",
        statement="Most of the entropy is spent and most of the gain made early: the last two thirds are marginal",
        source="Fig 2, Section 2.3",
        items=("fig02",),
        criteria=(
            Criterion(
                "entropy left after a third of training",
                at_most(0.25),
                _consumed(_ENTROPY, 1 / 3),
                fig02.PAPER[1 / 3, "entropy left"] / 100,
                PERCENT,
            ),
            Criterion(
                "gain reached after a third",
                at_least(0.75),
                _consumed(_REACHED, 1 / 3),
                fig02.PAPER[1 / 3, "gain reached"] / 100,
                PERCENT,
            ),
            Criterion(
                "entropy left after a twelfth",
                at_most(0.5),
                _consumed(_ENTROPY, 1 / 12),
                fig02.PAPER[1 / 12, "entropy left"] / 100,
                PERCENT,
            ),
            Criterion(
                "gain reached after a twelfth",
                at_least(0.5),
                _consumed(_REACHED, 1 / 12),
                fig02.PAPER[1 / 12, "gain reached"] / 100,
                PERCENT,
            ),
        ),
    ),
    Claim(
        key="law",
        statement="R = −a exp(H) + b describes every run, with two coefficients",
        source="Eq. 6, Fig 3 and 4, Section 2.4",
        items=("fig03", "fig04"),
        criteria=(
            Criterion(
                "explained variance R² of the fit, mean",
                at_least(0.9),
                _fit("r2", "fig03", "fig04"),
                _published_fit("r2"),
            ),
            Criterion(
                "residual error of the fit",
                at_most(0.02),
                _fit("rmse", "fig03", "fig04"),
                _published_fit("rmse"),
                POINTS,
            ),
            Criterion(
                "share of these runs whose a is positive with its whole interval",
                at_least(0.95),
                _positive_slope("fig03", "fig04"),
                "every run",
                PERCENT,
            ),
        ),
    ),
    Claim(
        key="forecast",
        statement="The first 15 % of training predict the rest",
        source="Fig 5, Section 2.4; bounds: twice the published errors; last number: our reading of Fig 11",
        items=("fig05", "forecasts"),
        criteria=(
            Criterion("error over the rest, math", at_most(0.018), _forecast("rmse", MATH), 0.009, POINTS),
            Criterion("error at the end, math", at_most(0.01), _forecast("final_error", MATH), 0.005, POINTS),
            Criterion("error over the rest, code", at_most(0.024), _forecast("rmse", CODE), 0.012, POINTS),
            Criterion("error at the end, code", at_most(0.038), _forecast("final_error", CODE), 0.019, POINTS),
            Criterion(
                "error of repeating the last accuracy seen, less that of the law",
                above(0),
                _over_last_value,
                _published_over_last_value,
                POINTS,
            ),
        ),
    ),
    Claim(
        key="instruct",
        statement="The law holds for instruction-tuned models too",
        source="Fig 14, Appendix D",
        items=("fig14",),
        criteria=(
            Criterion(
                "explained variance R² of the fit, mean", at_least(0.9), _fit("r2", "fig14"), "drawn", PLAIN
            ),
            Criterion(
                "share of these runs whose a is positive with its whole interval",
                at_least(0.95),
                _positive_slope("fig14"),
                "every run",
                PERCENT,
            ),
        ),
    ),
)
