"""The paper's claims about entropy and accuracy: Sections 1 and 2, Fig 1 to 7, 13 and 14."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from ...figures import fig02, fig05, published, style
from .criteria import PERCENT, PLAIN, POINTS, Claim, Criterion, above, at_least, at_most, below
from .evidence import IDENTITY, Estimate, Evidence, NotMeasured, counted, fewest_seeds, mean, share

MATH, CODE = "math", "code"
ONE_CURVE, TOO_FEW = "one curve", "not enough points"
Measure = Callable[[Evidence], Estimate]


def _entropy_left(evidence: Evidence) -> Estimate:
    ends = evidence.ends_of(("fig01",), style.BASELINE)
    return mean(ends, ends["entropy_end"] / ends["entropy_first"])


def _gain(evidence: Evidence) -> Estimate:
    ends = evidence.ends_of(("fig01",), style.BASELINE)
    return mean(ends, ends["accuracy_end"] - ends["accuracy_first"])


def _exchange(evidence: Evidence) -> Estimate:
    """Rank correlation of entropy and accuracy over the validations of a run, mean over runs."""
    columns = [*IDENTITY, style.ENTROPY, style.ACCURACY]
    curves = style.of_method(evidence.table("curves", columns, ("fig01",)))
    points = curves.dropna(subset=[style.ENTROPY, style.ACCURACY])
    rows = [
        {**run[IDENTITY].iloc[0], "value": _rank_correlation(run[style.ENTROPY], run[style.ACCURACY])}
        for _, run in points.groupby("run")
    ]
    if not rows:
        raise NotMeasured("no GRPO run was validated")
    return mean(pd.DataFrame(rows), "value")


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
        rows = style.of_method(evidence.table("consumption", ["run", "fraction", column], ("fig02",)))
        rows = rows[np.isclose(rows["fraction"].astype(float), fraction, rtol=0, atol=1e-6)]
        return mean(rows, column)

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


def _published_fit(column: str) -> Callable[[Evidence], float]:
    def value(evidence: Evidence) -> float:
        return float(evidence.table("published_law", [column])[column].astype(float).mean())

    return value


def forecasts(evidence: Evidence, items: tuple[str, ...] = (), **wanted: object) -> pd.DataFrame:
    """Rows of the forecasts with the given values of fraction, predictor and direction."""
    columns = ["run", "model", "method", "seed", "fraction", "predictor", "direction", "rmse", "final_error"]
    rows = style.of_method(evidence.table("forecasts", columns, items))
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
        wanted = {"fraction": fig05.FRACTION, "predictor": "exponential", "direction": "forward"}
        rows = _of_task(evidence, forecasts(evidence, ("fig05",), **wanted), task)
        return mean(rows, rows[column].abs())

    return measure


def _over_last_value(evidence: Evidence) -> Estimate:
    """How much smaller the error is than that of going on with the last accuracy seen."""
    errors = {
        name: forecasts(
            evidence, ("fig05",), fraction=fig05.FRACTION, predictor=name, direction="forward"
        ).set_index("run")
        for name in ("exponential", "last-value")
    }
    both = errors["exponential"].join(errors["last-value"]["rmse"].rename("naive"), how="inner").reset_index()
    if both.empty:
        raise NotMeasured("no GRPO run has both forecasts")
    return mean(both, both["naive"] - both["rmse"])


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
    found = share(rows, rows["verdict"] == ONE_CURVE, "group of runs")
    seeds = _seeds_of(evidence, ("fig06", "common_law"))
    basis = f"{found.basis}, smallest p {rows['p'].min():.2g}"
    return Estimate(found.value, found.low, found.high, found.runs, seeds, basis)


def _seeds_of(evidence: Evidence, items: tuple[str, ...]) -> int:
    names = {run for name in items for run in evidence.shown.get(name, ())}
    runs = evidence.table("runs", IDENTITY)
    return fewest_seeds(runs[runs["run"].isin(names)])


def _sizes(evidence: Evidence, coefficient: str) -> pd.DataFrame:
    """The size law of one coefficient, of the task with the most sizes."""
    columns = ["task", "coefficient", "model", "non_embedding_parameters", "value", "left_out_prediction"]
    rows = evidence.table("size_law", columns)
    rows = rows[rows["coefficient"] == coefficient].dropna(subset=["value"]).drop_duplicates(["task", "model"])
    if rows.empty:
        raise NotMeasured(f"the size law has no {coefficient}")
    task = max(rows["task"].unique(), key=lambda name: ((rows["task"] == name).sum(), name == MATH))
    rows = rows[rows["task"] == task]
    if len(rows) < 3:
        raise NotMeasured(f"{counted(len(rows), 'model size')}, at least 3 are needed")
    return rows


def _slope(coefficient: str) -> Measure:
    def measure(evidence: Evidence) -> Estimate:
        rows = _sizes(evidence, coefficient)
        line = stats.linregress(
            np.log(rows["non_embedding_parameters"].astype(float)), rows["value"].astype(float)
        )
        half = float(stats.t.ppf(0.975, len(rows) - 2)) * line.stderr
        basis = f"{len(rows)} sizes, {rows['task'].iloc[0]}"
        seeds = _seeds_of(evidence, ("fig07",))
        return Estimate(line.slope, line.slope - half, line.slope + half, len(rows), seeds, basis)

    return measure


def _left_out(coefficient: str) -> Measure:
    """1 - squared errors of predicting each size from the others, over those of predicting the others' mean."""

    def measure(evidence: Evidence) -> Estimate:
        rows = _sizes(evidence, coefficient)
        values = rows["value"].to_numpy(float)
        others = (values.sum() - values) / (len(values) - 1)
        errors = values - rows["left_out_prediction"].to_numpy(float)
        explained = 1 - (errors**2).sum() / ((values - others) ** 2).sum()
        return Estimate(
            float(explained), runs=len(rows), seeds=_seeds_of(evidence, ("fig07",)), basis=f"{len(rows)} sizes"
        )

    return measure


def _heterogeneity(coefficient: str) -> Measure:
    """p-value of Cochran's Q: whether the runs' intervals are too far apart for one common value."""

    def measure(evidence: Evidence) -> Estimate:
        names = [coefficient, f"{coefficient}_low", f"{coefficient}_high"]
        rows = style.of_method(evidence.table("law", [*IDENTITY, *names], ("fig13",)))
        rows = style.largest_model(rows, evidence.table("runs", ["model", "non_embedding_parameters"]))
        rows = rows.dropna(subset=names)
        by_set = rows.groupby("train_set")
        if by_set.ngroups < 2:
            raise NotMeasured("fewer than two training sets with a fit")
        spread = rows.assign(error=(rows[names[2]] - rows[names[1]]) / (2 * 1.96))
        spread = spread[spread["error"] > 0]
        if spread["train_set"].nunique() < 2:
            raise NotMeasured("the fits have no intervals")
        weights = 1 / spread["error"] ** 2
        sums = pd.DataFrame({"set": spread["train_set"], "w": weights, "wx": weights * spread[coefficient]})
        sums = sums.groupby("set").sum()
        centres = sums["wx"] / sums["w"]
        common = sums["wx"].sum() / sums["w"].sum()
        q = float((sums["w"] * (centres - common) ** 2).sum())
        p = float(stats.chi2.sf(q, len(sums) - 1))
        basis = f"{len(sums)} training sets, {coefficient} from {centres.min():.2f} to {centres.max():.2f}"
        return Estimate(p, p, p, len(spread), fewest_seeds(spread), basis)

    return measure


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
        source="Fig 5, Section 2.4; bounds: twice the published errors",
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
                "not compared",
                POINTS,
            ),
        ),
    ),
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
        source="Fig 7, Section 2.5; published slopes: our reading of Fig 1",
        items=("fig07",),
        criteria=(
            Criterion("slope of a per unit of ln parameters", above(0), _slope("a"), 0.046),
            Criterion("slope of b per unit of ln parameters", above(0), _slope("b"), 0.116),
            Criterion(
                "variance of a at a size that is explained by the others",
                at_least(0.5),
                _left_out("a"),
                unit=PERCENT,
            ),
            Criterion(
                "variance of b at a size that is explained by the others",
                at_least(0.5),
                _left_out("b"),
                unit=PERCENT,
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
