"""The paper's claims about covariance: Section 3 up to the theorems, Fig 8 and Table 1."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from ...analysis.dynamics_summary import Bootstrap, average, pearson
from ...figures import published, style, table1
from .criteria import PERCENT, PLAIN, SLOPE, TIMES, Claim, Criterion, Measure, above, at_least, at_most, between
from .evidence import IDENTITY, Estimate, Evidence, NotMeasured, counted, mean, share

COVARIANCE, LOSS, GROUP = "covariance", "minus_entropy_difference", "group_accuracy="
RESAMPLES = 1000


def _summary(evidence: Evidence, columns: list[str], items: tuple[str, ...] = ()) -> pd.DataFrame:
    """Rows of the summaries with model, training set and updates beside."""
    summary = evidence.table("dynamics_summary", ["run", "steps", *columns], items)
    runs = evidence.table("runs", [*IDENTITY, "updates_per_rollout"]).drop_duplicates("run")
    kept = [name for name in summary.columns if name == "run" or name not in runs.columns]
    return summary[kept].merge(runs, on="run")


def _on_policy(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows[rows["updates_per_rollout"] == 1]
    if rows.empty:
        raise NotMeasured("no strictly on-policy run in Fig 8")
    return rows


def _summarised(column: str) -> Measure:
    def measure(evidence: Evidence) -> Estimate:
        rows = _on_policy(_summary(evidence, [column], ("fig08",)))
        return mean(rows, column, within=(f"{column}_low", f"{column}_high"))

    return measure


def mean_correlation(
    pairs: dict[str, tuple[np.ndarray, np.ndarray]], runs: pd.DataFrame, smoothed: int = 1
) -> Estimate:
    """Mean over runs of the correlation of two series (by run); that of a single run has its own interval.

    `smoothed`: steps of the moving mean that both series are.
    """
    rows = runs[runs["run"].isin(pairs)].drop_duplicates("run")
    rows = rows.assign(value=[float(pearson(*pairs[run])) for run in rows["run"]]).dropna(subset=["value"])
    if len(rows) == 1:
        run = str(rows["run"].iloc[0])
        rows = rows.assign(**Bootstrap(RESAMPLES, 0, run)("value", pearson, *pairs[run], smoothed=smoothed))
    return mean(rows, "value", within=("value_low", "value_high"))


def _smoothed(evidence: Evidence) -> Estimate:
    """Correlation of the two smoothed curves of Fig 8 left, as far as they can be compared with the paper's."""
    columns = ["run", "method", "seed", "series", "step", "smooth", "window"]
    wanted = set(_on_policy(_summary(evidence, [], ("fig08",)))["run"])
    series = evidence.table("dynamics", columns, ("fig08",))
    series = series[series["run"].isin(wanted) & series["series"].isin([COVARIANCE, LOSS])]
    pairs = {}
    for run, group in series.groupby("run", sort=False):
        wide = group.pivot_table(index="step", columns="series", values="smooth")
        pairs[run] = tuple(wide.reindex(columns=[COVARIANCE, LOSS]).dropna().to_numpy(float).T)
    window = int(series["window"].max()) if len(series) else 1
    return mean_correlation(pairs, evidence.table("runs", IDENTITY), window)


def _published_left() -> pd.DataFrame:
    return published.load("fig08_left").pivot(index="step", columns="quantity", values="value").dropna()


def _positive_runs(evidence: Evidence) -> Estimate:
    rows = _summary(evidence, ["positive_share"]).dropna(subset=["positive_share"])
    return share(rows, rows["positive_share"] > 0.5)


def _groups(evidence: Evidence) -> dict[float, pd.DataFrame]:
    """Covariances of single steps by group accuracy, runs of Fig 8; from hard to easy prompts."""
    columns = ["run", "method", "seed", "series", "step", "value"]
    rows = evidence.table("dynamics", columns, ("fig08",))
    rows = rows[rows["series"].str.startswith(GROUP)].dropna(subset=["value"])
    accuracy = rows["series"].str.removeprefix(GROUP).astype(float)
    return {float(level): rows[accuracy == level] for level in sorted(accuracy.unique())}


def _easier(harder: str, easier: str) -> Measure:
    """Mean difference of covariance between easier and harder prompts over the steps that have both."""

    def measure(evidence: Evidence) -> Estimate:
        groups = _groups(evidence)
        if len(groups) < 3:
            raise NotMeasured(f"{counted(len(groups), 'group accuracy level')}, three are needed")
        levels = list(groups)
        chosen = {"hard": levels[0], "middle": min(levels, key=lambda x: abs(x - 0.5)), "easy": levels[-1]}
        steps = groups[chosen[harder]].merge(groups[chosen[easier]], on=["run", "step"], suffixes=("", "_easier"))
        if steps.empty:
            raise NotMeasured("no step has prompts of both difficulties")
        steps = steps.sort_values("step").assign(difference=steps["value_easier"] - steps["value"])
        means = steps.groupby("run")["difference"].mean().rename("value")
        runs = evidence.table("runs", IDENTITY).drop_duplicates("run")
        rows = runs.join(means, on="run", how="inner")
        if len(rows) == 1:
            bootstrap = Bootstrap(RESAMPLES, 0, str(rows["run"].iloc[0]))
            rows = rows.assign(**bootstrap("value", average, steps["difference"].to_numpy(float)))
        return mean(rows, "value", within=("value_low", "value_high"))

    return measure


def _published_easier(harder: float, easier: float) -> Callable[[Evidence], float]:
    def value(_: Evidence) -> float:
        means = published.load("fig08_right").groupby("group_accuracy")["covariance"].mean()
        return float(means[easier] - means[harder])

    return value


BANDITS, DECISIONS = "tabular", "tabular_left_out"
"""Files of the exact checks: on bandits, as the formulas suppose, and on decision processes of several states."""


def first_order(kind: str, check: str, states: str = "held") -> Measure:
    """Slope of the error of a formula as printed against the step size, both logarithmic: 2 if it is right.

    Median over the random problems; `states` says whether the visited states are held or follow the policy.
    """

    def measure(evidence: Evidence) -> Estimate:
        rows = evidence.table(kind, ["check", "states", "form", "instance", "step_size", "error"])
        for name, value in {"check": check, "states": states, "form": "printed"}.items():
            rows = rows[rows[name] == value]
        rows = rows[rows["error"] > 0]
        slopes = [
            np.polyfit(np.log(problem["step_size"]), np.log(problem["error"]), 1)[0]
            for _, problem in rows.groupby("instance")
            if problem["step_size"].nunique() > 1
        ]
        if not slopes:
            raise NotMeasured(f"{kind}.parquet has no {check.replace('-', ' ')} at two step sizes")
        basis = f"median of {counted(len(slopes), 'random problem')}, float64"
        return Estimate(float(np.median(slopes)), basis=basis, exact=True)

    return measure


def of_language_models(column: str) -> Measure:
    """Mean over runs of a column of the summaries, with the interval of a single run."""

    def measure(evidence: Evidence) -> Estimate:
        rows = _summary(evidence, [column])
        if rows[column].isna().all():
            raise NotMeasured("no run measured its change of entropy; training.measure_entropy_change_every is 0")
        return mean(rows, column, within=(f"{column}_low", f"{column}_high"))

    return measure


def _predicted(evidence: Evidence) -> Estimate:
    """Correlation of predicted and measured entropy change on the same prefixes, of the language models."""
    columns = ["run", "step", "same_prefix", "predicted"]
    changes = evidence.table("entropy_change", columns).dropna(subset=["same_prefix", "predicted"])
    pairs = {
        run: (group["predicted"].to_numpy(float), group["same_prefix"].to_numpy(float))
        for run, group in changes.sort_values("step").groupby("run", sort=False)
    }
    return mean_correlation(pairs, evidence.table("runs", IDENTITY))


def normal_tail(fraction: float) -> float:
    """Mean of the top `fraction` of a normal distribution over that of its upper half."""
    top = stats.norm.pdf(stats.norm.isf(fraction)) / fraction
    return float(top / (stats.norm.pdf(0) / 0.5))


def _tail(fraction: float) -> Measure:
    """Mean covariance of the top tokens over that of the upper half, first step of the GRPO runs."""

    def measure(evidence: Evidence) -> Estimate:
        names = [f"{table1.PREFIX}{share:g}" for share in (fraction, 0.5)]
        rows = style.of_method(evidence.table("token_covariances", [*IDENTITY, "step", *names], ("table1",)))
        rows = rows[rows["step"] == 0]
        return mean(rows, rows[names[0]] / rows[names[1]])

    return measure


def _published_tail(fraction: float) -> Callable[[Evidence], float]:
    def value(_: Evidence) -> float:
        means = published.load("table1").set_index("top_fraction")["mean_covariance"]
        return float(means[fraction] / means[0.5])

    return value


def _constructed(evidence: Evidence) -> Estimate:
    rows = evidence.table("counterexamples", ["case", "update", "covariance", "entropy_change"])
    rows = rows[rows["update"] == 0]
    found = rows.loc[(rows["covariance"] < 0) & (rows["entropy_change"] > 0), "case"].nunique()
    basis = f"{found} of {counted(rows['case'].nunique(), 'constructed case')}, first update"
    return Estimate(float(found), basis=basis, exact=True)


SECOND_ORDER = between(1.9, 2.1)
FORMULAS = (
    ("Lemma 1", (BANDITS, "lemma-1"), "proved"),
    ("Proposition 1", (BANDITS, "proposition-1"), "proved"),
    ("Theorem 1", (BANDITS, "theorem-1"), "proved"),
    ("Theorem 2", (BANDITS, "theorem-2"), "proved"),
    ("Theorem 1 as printed with several states", (DECISIONS, "theorem-1"), "proved, without d(s) / (1 − γ)"),
    ("Theorem 2 as printed with several states", (DECISIONS, "theorem-2"), "proved, without 1 / (1 − γ)"),
)
"""The formulas that are checked exactly: name, file and check, what the paper has."""
TAILS = {0.002: 2 * normal_tail(0.002), 0.02: 2 * normal_tail(0.02)}
"""Twice what a normal distribution has: the bound of a heavy tail."""

CLAIMS = (
    Claim(
        key="theory",
        statement="To first order the entropy changes by minus the covariance of log-probability and logit change",
        source="Lemma 1, Proposition 1, Theorems 1 and 2, Section 3.2",
        items=("theory", "entropy_change"),
        criteria=(
            *(
                Criterion(
                    f"slope of the error against step size, {name}", SECOND_ORDER, first_order(*case), said, SLOPE
                )
                for name, case, said in FORMULAS
            ),
            Criterion(
                "correlation of predicted and measured change on the language models",
                at_least(0.5),
                _predicted,
                "not measured",
            ),
        ),
    ),
    Claim(
        key="tracks",
        statement="The step-wise loss of entropy follows the covariance",
        source="Fig 8 left, Section 3.3; published numbers: our reading of the smoothed curves",
        items=("fig08", "covariance_grid"),
        criteria=(
            Criterion(
                "correlation of the smoothed curves",
                at_least(0.5),
                _smoothed,
                lambda _: float(_published_left().corr().iloc[0, 1]),
            ),
            Criterion("rank correlation of single steps", above(0), _summarised("spearman"), "not shown"),
        ),
    ),
    Claim(
        key="positive",
        statement="The covariance is positive most of the time, so entropy keeps falling",
        source="Fig 8 left, Section 3.3",
        items=("fig08", "covariance_grid"),
        criteria=(
            Criterion(
                "share of on-policy steps with positive covariance",
                above(0.5),
                _summarised("positive_share"),
                lambda _: float((_published_left()["covariance"] > 0).mean()),
                PERCENT,
            ),
            Criterion(
                "share of all runs in which it is positive on most steps",
                above(0.5),
                _positive_runs,
                "one run shown",
                PERCENT,
            ),
        ),
    ),
    Claim(
        key="difficulty",
        statement="The covariance is larger on easier prompts",
        source="Fig 8 right, Section 3.3",
        items=("fig08",),
        criteria=(
            Criterion(
                "covariance of middling less that of the hardest prompts",
                above(0),
                _easier("hard", "middle"),
                _published_easier(0.125, 0.5),
            ),
            Criterion(
                "covariance of the easiest less that of middling prompts",
                above(0),
                _easier("middle", "easy"),
                _published_easier(0.5, 0.875),
            ),
        ),
    ),
    Claim(
        key="tail",
        statement="A small share of tokens has covariances far above all others",
        source="Table 1, Section 4.2; bounds: twice what a normal distribution has",
        items=("table1",),
        criteria=(
            Criterion(
                "mean of the top 0.2 % of tokens over that of the upper half",
                at_least(round(TAILS[0.002], 1)),
                _tail(0.002),
                _published_tail(0.002),
                TIMES,
            ),
            Criterion(
                "mean of the top 2 % of tokens over that of the upper half",
                at_least(round(TAILS[0.02], 1)),
                _tail(0.02),
                _published_tail(0.02),
                TIMES,
            ),
        ),
    ),
)

POSITIVITY = Claim(
    key="necessary",
    statement="A policy that gains reward has positive covariance, so that it has to lose entropy",
    source="Referees on Section 3; the paper reports positivity as an observation",
    items=("theory",),
    criteria=(
        Criterion(
            "constructed cases with negative covariance and rising entropy",
            at_most(0),
            _constructed,
            "not discussed",
            PLAIN,
        ),
    ),
)


def level_correlation(other: str) -> Measure:
    """Correlation over steps of the token covariance (Eq. 10) with that of another granularity."""

    def measure(evidence: Evidence) -> Estimate:
        levels = evidence.table("covariance_levels", ["run", "step", "token", other]).dropna(
            subset=["token", other]
        )
        pairs = {
            run: (group["token"].to_numpy(float), group[other].to_numpy(float))
            for run, group in levels.sort_values("step").groupby("run", sort=False)
        }
        return mean_correlation(pairs, evidence.table("runs", IDENTITY))

    return measure
