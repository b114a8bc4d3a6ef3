"""The paper's claims about the coefficients of several runs: Section 2.5 and Appendix C, Fig 6, 7 and 13."""

from collections.abc import Callable

import pandas as pd
from scipy import stats

from ...figures import style
from .criteria import PERCENT, Claim, Criterion, above, at_least, below
from .evidence import IDENTITY, Estimate, Evidence, NotMeasured, fewest_seeds, share
from .law import MATH

Measure = Callable[[Evidence], Estimate]
ONE_CURVE, TOO_FEW = "one curve", "not enough points"


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


_SIZE_COLUMNS = ("slope", "slope_low", "slope_high", "left_out_error", "left_out_error_of_mean")


def _sizes(evidence: Evidence, coefficient: str, kind: str = "size_law") -> pd.DataFrame:
    """The size law of one coefficient, of the task with the most sizes."""
    rows = evidence.table(kind, ["task", "coefficient", "model", *_SIZE_COLUMNS])
    rows = rows[rows["coefficient"] == coefficient].dropna(subset=["slope"]).drop_duplicates(["task", "model"])
    if rows.empty:
        raise NotMeasured(f"too few model sizes to fit {coefficient}")
    task = max(rows["task"].unique(), key=lambda name: ((rows["task"] == name).sum(), name == MATH))
    return rows[rows["task"] == task]


def _slope(coefficient: str) -> Measure:
    def measure(evidence: Evidence) -> Estimate:
        rows = _sizes(evidence, coefficient)
        found = (float(rows[name].iloc[0]) for name in ("slope", "slope_low", "slope_high"))
        basis = f"{len(rows)} sizes, {rows['task'].iloc[0]}"
        return Estimate(*found, len(rows), _seeds_of(evidence, ("fig07",)), basis)

    return measure


def _explained(rows: pd.DataFrame) -> float:
    """1 - squared errors of predicting each size from the others, over those of predicting the others' mean."""
    errors, of_mean = (rows[name].to_numpy(float) for name in ("left_out_error", "left_out_error_of_mean"))
    return float(1 - (errors**2).sum() / (of_mean**2).sum())


def _left_out(coefficient: str) -> Measure:
    def measure(evidence: Evidence) -> Estimate:
        rows = _sizes(evidence, coefficient)
        seeds = _seeds_of(evidence, ("fig07",))
        return Estimate(_explained(rows), runs=len(rows), seeds=seeds, basis=f"{len(rows)} sizes")

    return measure


def _published_slope(coefficient: str) -> Callable[[Evidence], float]:
    return lambda evidence: float(_sizes(evidence, coefficient, "published_size_law")["slope"].iloc[0])


def _published_left_out(coefficient: str) -> Callable[[Evidence], float]:
    return lambda evidence: _explained(_sizes(evidence, coefficient, "published_size_law"))


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
            Criterion("slope of a per unit of ln parameters", above(0), _slope("a"), _published_slope("a")),
            Criterion("slope of b per unit of ln parameters", above(0), _slope("b"), _published_slope("b")),
            Criterion(
                "variance of a at a size that is explained by the others",
                at_least(0.5),
                _left_out("a"),
                _published_left_out("a"),
                PERCENT,
            ),
            Criterion(
                "variance of b at a size that is explained by the others",
                at_least(0.5),
                _left_out("b"),
                _published_left_out("b"),
                PERCENT,
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
