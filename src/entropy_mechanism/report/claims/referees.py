"""What the paper's claims rest on without a test, and its referees asked about."""

import math
from collections.abc import Callable

import pandas as pd

from ...analysis.ceiling import PASSED, TOO_FEW
from ...analysis.columns import ENTROPY_BEFORE_FILTER
from ...figures import entropy_change, style
from . import dynamics
from .criteria import PERCENT, POINTS, SLOPE, TIMES, Claim, Criterion, Measure, above, at_least, at_most
from .evidence import IDENTITY, Estimate, Evidence, NotMeasured, counted, fewest_seeds, ratio, share
from .law import DOTS, both_errors
from .sweeps import factor_beyond_seeds, gap_beyond_seeds

Runs = Callable[[pd.DataFrame], pd.Series]
EXPONENTIAL = "exponential"
NEAR = 0.02  # accuracy: a run no farther from the baseline's curve is on it
AS_GOOD = 2.0  # a difference in AICc below 2 is no evidence against a form (Burnham and Anderson 2002)


def _forms(evidence: Evidence, kind: str = "forms") -> pd.DataFrame:
    """GRPO's forms; AICc counts points discounted for the autocorrelation of the residuals."""
    rows = evidence.table(kind, ["run", "model", "method", "seed", "form", "delta_aicc_effective", "blocked_rmse"])
    if "series" in rows:  # of the published curves, what was read off their dots: the fits drawn fit themselves
        rows = rows[rows["series"].isin((DOTS, "fig11"))]
    return style.of_method(rows)


def _as_good(evidence: Evidence, kind: str = "forms") -> Estimate:
    rows = _forms(evidence, kind)
    rows = rows[(rows["form"] == EXPONENTIAL) & rows["delta_aicc_effective"].notna()]
    return share(rows, rows["delta_aicc_effective"] <= AS_GOOD)


def _published_as_good(evidence: Evidence) -> str:
    return f"{_as_good(evidence, 'published_forms').basis.removesuffix(' runs')} published curves"


def _out_of_sample(evidence: Evidence, kind: str = "forms") -> Estimate:
    """Blocked out-of-sample error of the exponential over that of each run's best form."""
    rows = _forms(evidence, kind).dropna(subset=["blocked_rmse"])
    best = rows.groupby("run")["blocked_rmse"].min().rename("best")
    rows = rows[rows["form"] == EXPONENTIAL].join(best, on="run")
    return ratio(rows, "blocked_rmse", "best", "run")


def _backwards(evidence: Evidence, kind: str = "forecasts") -> Estimate:
    """Error of the early half from the late one, over that of the late half from the early one."""
    forward = {"fraction": 0.5, "predictor": EXPONENTIAL, "direction": "forward"}
    both = both_errors(evidence, kind, forward | {"direction": "reversed"}, forward)
    return ratio(both, "rmse", "other", "run")


def _ceilings(evidence: Evidence, kind: str = "ceiling") -> pd.DataFrame:
    """Interventions with enough points to be judged beside a baseline."""
    rows = evidence.table(kind, ["verdict", "residual_low", "residual_high", "excess_high"])
    keys = [name for name in ("run", "model", "method", "series") if name in rows]
    rows = rows.drop_duplicates(keys) if keys else rows
    rows = rows[rows["verdict"] != TOO_FEW].dropna(subset=["residual_low", "residual_high"])
    if rows.empty:
        raise NotMeasured("no intervention has enough points beside a baseline")
    return rows


def _near(rows: pd.DataFrame) -> pd.Series:
    """Whether the whole interval of a run's distance from the curve is within `NEAR`."""
    return (rows["residual_low"] >= -NEAR) & (rows["residual_high"] <= NEAR)


def _passed(rows: pd.DataFrame) -> pd.Series:
    return rows["verdict"] == PASSED


def _far(rows: pd.DataFrame) -> pd.Series:
    return (rows["residual_low"] > NEAR) | (rows["residual_high"] < -NEAR)


def _below(rows: pd.DataFrame) -> pd.Series:
    return rows["excess_high"] <= 0


def _share_that_keeps(holds: Runs, fails: Runs) -> Measure:
    """Share of runs for which something holds, of those that end with more entropy than their baseline.

    Runs with a common baseline are not independent, so there is no interval over them: the share is sure where
    every run's own interval says that it `holds` or `fails`, and open otherwise.
    """

    def measure(evidence: Evidence) -> Estimate:
        rows = _ceilings(evidence).merge(evidence.ends[["run", "entropy_end"]], on="run")
        ends = style.of_method(evidence.ends).groupby(["model", "train_set"])["entropy_end"].mean()
        rows = rows.join(ends.rename("baseline_end"), on=["model", "train_set"])
        rows = rows[rows["entropy_end"] > rows["baseline_end"]]
        if rows.empty:
            raise NotMeasured("no run that can be judged ends with more entropy than its baseline")
        held = holds(rows)
        undecided = int((~held & ~fails(rows)).sum())
        value, end = float(held.mean()), math.nan if undecided else float(held.mean())
        basis = f"{int(held.sum())} of {counted(len(rows), 'run')}, {undecided} of them open"
        return Estimate(value, end, end, len(rows), fewest_seeds(rows), basis)

    return measure


def _published_share(holds: Runs) -> Callable[[Evidence], str]:
    def text(evidence: Evidence) -> str:
        rows = _ceilings(evidence, "published_ceiling")
        return f"{int(holds(rows).sum())} of {len(rows)} in its own Fig 11"

    return text


def _other_states(evidence: Evidence) -> Estimate:
    """Change of entropy over training that comes from other prefixes, over that on the same ones, in size.

    What comes from other prefixes is the change of entropy between the first and the last step less the sum of
    what the updates in between did to the same prefixes, a measured step standing for those up to the next one, as
    in the figure `entropy_change`. The parts of the measured steps alone would sum to the noise of their prompts,
    since every rollout has its own; over the whole run only that of the ends is left, and smoothing lessens it.
    """
    changes = evidence.table("entropy_change", ["run", "step", "same_prefix", "predicted"])
    changes = changes.dropna(subset=["same_prefix"])
    curves = evidence.table("curves", ["run", "step", ENTROPY_BEFORE_FILTER]).sort_values("step")
    totals = []
    for run, measured in changes.groupby("run"):
        entropy = curves[curves["run"] == run].set_index("step")[ENTROPY_BEFORE_FILTER]
        same = entropy_change.sums_before(entropy.index, measured)["same_prefix"]
        # smoothed alike: at the start, where the curve is steepest, smoothing takes from its fall
        ends = pd.DataFrame(
            {"same": entropy_change.smoothed(same), "other": entropy_change.smoothed(entropy - same)}
        )
        totals.append({"run": run} | (ends.ffill().iloc[-1] - ends.bfill().iloc[0]).abs().to_dict())
    if not totals:
        raise NotMeasured("no run measured its change of entropy; training.measure_entropy_change_every is 0")
    runs = evidence.table("runs", IDENTITY).drop_duplicates("run")
    return ratio(pd.DataFrame(totals).merge(runs, on="run"), "other", "same", "run")


CLAIMS = (
    Claim(
        key="form",
        statement="The exponential is the right form of the law, not one curve among others",
        source="Referees on Section 2; Eq. 6 has no derivation; published numbers: our fits of its curves",
        items=("forms",),
        criteria=(
            Criterion(
                "share of GRPO runs that no other form fits better (AICc difference of at most 2)",
                above(0.5),
                _as_good,
                _published_as_good,
                PERCENT,
            ),
            Criterion(
                "error on blocks left out, over that of the best form",
                at_most(1.1),
                _out_of_sample,
                lambda evidence: _out_of_sample(evidence, "published_forms").value,
                TIMES,
            ),
        ),
    ),
    Claim(
        key="backwards",
        statement="The law holds in both directions: the late part of a run predicts its early part as well",
        source="Referees on Section 2.4; published number: our reading of Fig 11",
        items=("forecasts",),
        criteria=(
            Criterion(
                "error of the early half from the late one, over that the other way round",
                at_most(2),
                _backwards,
                lambda evidence: _backwards(evidence, "published_forecasts").value,
                TIMES,
            ),
        ),
    ),
    Claim(
        key="curve",
        statement="What keeps entropy moves along the baseline's curve R(H) and stays below its ceiling b − a",
        source="Referees on Sections 2 and 4",
        items=("ceiling", "ceiling_test"),
        criteria=(
            Criterion(
                "share of runs with more entropy within 2 points of the baseline's curve, with the whole interval",
                above(0.5),
                _share_that_keeps(_near, _far),
                _published_share(_near),
                PERCENT,
            ),
            Criterion(
                "share of runs with more entropy above the baseline's ceiling, with the whole interval",
                at_most(0.05),
                _share_that_keeps(_passed, _below),
                _published_share(_passed),
                PERCENT,
            ),
        ),
    ),
    dynamics.POSITIVITY,
    Claim(
        key="logits",
        statement="The change of a token's logit is proportional to its advantage",
        source="Referees on Section 3.2: Proposition 1 and Theorem 2 suppose exact gradients and tabular policies",
        items=("entropy_change",),
        criteria=(
            Criterion(
                "correlation of logit change and π A over tokens (Proposition 1)",
                at_least(0.5),
                dynamics.of_language_models("mean_logit_weighted_advantage"),
                "supposed",
            ),
            Criterion(
                "correlation of logit change and A over tokens (Theorem 2)",
                at_least(0.5),
                dynamics.of_language_models("mean_logit_advantage"),
                "supposed",
            ),
        ),
    ),
    Claim(
        key="states",
        statement="The change of the states' distribution, which Lemma 1 drops, is small",
        source="Referees on Section 3.2",
        items=("entropy_change", "theory"),
        criteria=(
            Criterion(
                "entropy change over training from other prefixes, over that on the same ones",
                at_most(0.5),
                _other_states,
                "dropped",
                TIMES,
            ),
            Criterion(
                "slope of the error against step size, Lemma 1 where the visited states follow the policy",
                dynamics.SECOND_ORDER,
                dynamics.first_order(dynamics.DECISIONS, "lemma-1", "followed"),
                "dropped",
                SLOPE,
            ),
        ),
    ),
    Claim(
        key="granularity",
        statement="Token, response and action covariances are interchangeable",
        source="Referees on Sections 3.3 and 4.2: Fig 8 shows one, the methods use another",
        items=("covariance_grid",),
        criteria=(
            Criterion(
                "correlation of token and response covariance over steps",
                at_least(0.5),
                dynamics.level_correlation("sequence"),
                "not compared",
            ),
            Criterion(
                "correlation of token and action covariance over steps",
                at_least(0.5),
                dynamics.level_correlation("action"),
                "not compared",
            ),
        ),
    ),
    Claim(
        key="scope",
        statement="It does not matter among which tokens, and by whose log-probabilities, the selection is made",
        source="Referees and users of the code: the text selects per batch, the code per micro-batch",
        items=("selection",),
        criteria=(
            Criterion(
                "factor between final entropies of the default scope and others, over that between seeds",
                at_most(1.25),
                factor_beyond_seeds("scope"),
                "not compared",
                TIMES,
            ),
            Criterion(
                "difference of their final accuracies, less that between seeds",
                at_most(0.02),
                gap_beyond_seeds("scope"),
                "not compared",
                POINTS,
            ),
            Criterion(
                "factor between final entropies with current and old log-probabilities, over that between seeds",
                at_most(1.25),
                factor_beyond_seeds("policy"),
                "not compared",
                TIMES,
            ),
            Criterion(
                "difference of these final accuracies, less that between seeds",
                at_most(0.02),
                gap_beyond_seeds("policy"),
                "not compared",
                POINTS,
            ),
        ),
    ),
)
