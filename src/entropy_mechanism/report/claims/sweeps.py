"""The paper's claims about coefficients, Fig 9, 10 and 12, and runs that differ in one setting alone."""

import json
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from ...methods import Selection
from .criteria import GAIN, PLAIN, TIMES, Claim, Criterion, Measure, above, at_least, at_most, below
from .evidence import PAIR, Estimate, Evidence, NotMeasured, counted, exponential, mean, paired, ratio

Read = Callable[[dict, dict], float | None]
"""The coefficient in a run's objective and regularisation; None for a run that is not of the sweep."""
Distance = Callable[[pd.DataFrame], pd.Series]
ENDS = ["entropy_end", "accuracy_end"]
ONE_POINT = 0.01
COEFFICIENTS = 3  # that a seed needs to count as a sweep


def sweep(evidence: Evidence, item: str, read: Read) -> pd.DataFrame:
    """Ends of an item's runs with the `coefficient` that `read` finds in their objective and regularisation.

    Runs for which it returns None are left out, so that the others differ in nothing but the coefficient.
    """
    ends = evidence.ends_of((item,))
    settings = evidence.settings
    found = {
        run: read(settings.at[run, "objective"], settings.at[run, "regularisation"])
        for run in ends["run"]
        if run in settings.index
    }
    rows = ends.assign(coefficient=ends["run"].map(found).astype(float)).dropna(subset=["coefficient"])
    if rows["coefficient"].nunique() < 2:
        raise NotMeasured("fewer than two coefficients were tried")
    return rows


def _bonus(_: dict, regularisation: dict) -> float | None:
    return None if regularisation.get("reference_kl") else float(regularisation.get("entropy") or 0)


def _reference(_: dict, regularisation: dict) -> float | None:
    return None if regularisation.get("entropy") else float(regularisation.get("reference_kl") or 0)


def _clip_share(objective: dict, _: dict) -> float | None:
    if objective.get("name") != "clip-cov":
        return None
    return float(objective["fraction"]) / (100 if objective.get("unit") == "percent" else 1)


def _kl_weight(objective: dict, _: dict) -> float | None:
    return float(objective["coefficient"]) if objective.get("name") == "kl-cov" else None


def _against_none(evidence: Evidence, item: str, read: Read, pick: Callable[[pd.Series], float]) -> pd.DataFrame:
    """Pairs of the runs whose coefficient `pick` chooses among those above zero, and the runs at zero."""
    rows = sweep(evidence, item, read)
    used = rows[rows["coefficient"] > 0]
    none = rows[rows["coefficient"] == 0]
    if used.empty or none.empty:
        raise NotMeasured("no run without the term, or none with it")
    return paired(used[used["coefficient"] == pick(used["coefficient"])], none)


def _smallest_kept(evidence: Evidence) -> Estimate:
    pairs = _against_none(evidence, "fig09", _bonus, min)
    return ratio(pairs, "entropy_end", "entropy_end_grpo")


def _largest_explodes(evidence: Evidence) -> Estimate:
    pairs = _against_none(evidence, "fig09", _bonus, max)
    return ratio(pairs, "entropy_end", "entropy_first_grpo")


def _best_gain(item: str, read: Read) -> Measure:
    """Accuracy less the baseline's at the coefficient that is best on average; no allowance for the choice."""

    def measure(evidence: Evidence) -> Estimate:
        rows = sweep(evidence, item, read)
        used, none = rows[rows["coefficient"] > 0], rows[rows["coefficient"] == 0]
        if used.empty or none.empty:
            raise NotMeasured("no run without the term, or none with it")
        pairs = paired(used, none)
        pairs = pairs.assign(gain=pairs["accuracy_end"] - pairs["accuracy_end_grpo"]).dropna(subset=["gain"])
        if pairs.empty:
            raise NotMeasured("no accuracy was measured at the end")
        means = pairs.groupby("coefficient")["gain"].mean()
        found = mean(pairs[pairs["coefficient"] == means.idxmax()], "gain", "pair")
        basis = f"{found.basis}, coefficient {means.idxmax():g}"
        return Estimate(found.value, found.low, found.high, found.runs, found.seeds, basis)

    return measure


def _strongest_keeps(evidence: Evidence) -> Estimate:
    return ratio(_against_none(evidence, "fig10", _reference, max), "entropy_end", "entropy_end_grpo")


def _strongest_costs(evidence: Evidence) -> Estimate:
    pairs = _against_none(evidence, "fig10", _reference, max)
    return mean(pairs, pairs["accuracy_end"] - pairs["accuracy_end_grpo"], "pair")


def _whole_sweeps(evidence: Evidence, item: str, read: Read) -> pd.DataFrame:
    """Rows of `sweep` whose model, training set and seed have three coefficients or more.

    With fewer, the seed shows no sweep: of a single coefficient the highest is the lowest entropy.
    """
    rows = sweep(evidence, item, read).dropna(subset=["entropy_end"])
    rows = rows[rows.groupby(PAIR)["coefficient"].transform("nunique") >= COEFFICIENTS]
    if rows.empty:
        raise NotMeasured("fewer than three coefficients were tried with one seed")
    return rows


def _monotone(item: str, read: Read) -> Measure:
    """Rank correlation of coefficient and entropy at the end, for each model, training set and seed."""

    def measure(evidence: Evidence) -> Estimate:
        found = []
        for identity, group in _whole_sweeps(evidence, item, read).groupby(PAIR):
            constant = group["entropy_end"].nunique() < 2
            statistic = math.nan if constant else stats.spearmanr(group["coefficient"], group["entropy_end"])[0]
            found.append({**dict(zip(PAIR, identity, strict=True)), "value": float(statistic)})
        return mean(pd.DataFrame(found), "value", "sweep")

    return measure


def _range(item: str, read: Read) -> Measure:
    """Highest over lowest entropy at the end that the coefficients reach, mean over seeds with three or more."""

    def measure(evidence: Evidence) -> Estimate:
        rows = _whole_sweeps(evidence, item, read)
        ends = rows.groupby([*PAIR, "coefficient"])["entropy_end"].mean().unstack()
        spread = ends.agg(["max", "min"], axis=1).reset_index()
        return ratio(spread, "max", "min", "sweep")

    return measure


def same_but(evidence: Evidence, item: str, setting: str) -> pd.DataFrame:
    """Pairs of runs of an item whose objectives differ in one setting alone, one of them having its default.

    The run with the default stands first, its method as `method`; ends of the other as `…_other`.
    """
    default = Selection.model_fields[setting].default
    ends = evidence.ends_of((item,))
    settings = evidence.settings
    rows = ends[ends["run"].isin(settings.index)].copy()
    chosen = settings.loc[rows["run"]]
    rows["value"] = [objective.get(setting) for objective in chosen["objective"]]
    rows["rest"] = [
        json.dumps(
            [{k: v for k, v in objective.items() if k != setting}, advantage, regularisation], sort_keys=True
        )
        for objective, advantage, regularisation in zip(
            chosen["objective"], chosen["advantage"], chosen["regularisation"], strict=True
        )
    ]
    rows = rows.dropna(subset=["value"])
    first = rows["value"] == default
    pairs = rows[first].merge(rows[~first], on=[*PAIR, "rest"], suffixes=("", "_other"))
    if pairs.empty:
        raise NotMeasured(f"no two runs differ in `{setting}` alone, one of them having its default {default}")
    return pairs


def _excess(evidence: Evidence, setting: str, distance: Distance) -> Estimate:
    """Mean distance between ends of runs that differ in a setting, less that between seeds of the default method.

    Two runs differ by chance as two seeds do; only what is beyond that is the setting's. The interval is that of
    the mean distance over pairs, less the same number: there is none where no default method has two seeds.
    """
    pairs = same_but(evidence, "selection", setting)
    apart = pairs.assign(distance=distance(pairs)).dropna(subset=["distance"])
    found = mean(apart, "distance", "pair")
    keys = ["model", "train_set", "method"]
    first = pairs[pairs["run"].isin(apart["run"])].drop_duplicates("run")[[*keys, "run", *ENDS]]
    seeds = first.merge(first, on=keys, suffixes=("", "_other"))
    seeds = seeds[seeds["run"] < seeds["run_other"]]
    between = distance(seeds).dropna()
    if between.empty:
        return Estimate(found.value, runs=found.runs, seeds=found.seeds, basis=f"{found.basis}, no seeds beside")
    chance = float(between.mean())
    basis = f"{found.basis}, less {counted(len(between), 'pair')} of seeds"
    ends = (found.low - chance, found.high - chance)
    return Estimate(found.value - chance, *ends, found.runs, found.seeds, basis)


def _log_entropies(pairs: pd.DataFrame) -> pd.Series:
    ends = [pairs[f"entropy_end{suffix}"].astype(float) for suffix in ("", "_other")]
    return np.log(ends[0].where(ends[0] > 0) / ends[1].where(ends[1] > 0)).abs()


def _accuracies(pairs: pd.DataFrame) -> pd.Series:
    return (pairs["accuracy_end"] - pairs["accuracy_end_other"]).abs()


def factor_beyond_seeds(setting: str) -> Measure:
    """Factor between final entropies of runs that differ in one setting, over that between seeds (geometric)."""

    return lambda evidence: exponential(_excess(evidence, setting, _log_entropies))


def gap_beyond_seeds(setting: str) -> Measure:
    """Mean absolute difference of final accuracies of runs that differ in one setting, less that between seeds."""
    return lambda evidence: _excess(evidence, setting, _accuracies)


SWEEPS = {"KL-Cov's coefficient": _kl_weight, "Clip-Cov's fraction": _clip_share}

CLAIMS = (
    Claim(
        key="bonus",
        statement="An entropy bonus is too sensitive: small coefficients do nothing, large ones blow entropy up, "
        "none is better",
        source="Fig 9, Section 4.1",
        items=("fig09",),
        criteria=(
            Criterion(
                "final entropy with the smallest coefficient over that without",
                at_most(1.5),
                _smallest_kept,
                "about 1",
                TIMES,
            ),
            Criterion(
                "final entropy with the largest coefficient over GRPO's at the start",
                above(1),
                _largest_explodes,
                "explodes",
                TIMES,
            ),
            Criterion(
                "accuracy of the best coefficient of all tried (too high by chance) less that without",
                at_most(ONE_POINT),
                _best_gain("fig09", _bonus),
                "not better",
                GAIN,
            ),
        ),
    ),
    Claim(
        key="reference",
        statement="A KL penalty to the reference model keeps entropy but costs accuracy",
        source="Fig 10, Section 4.1",
        items=("fig10",),
        criteria=(
            Criterion(
                "final entropy with the largest coefficient over that without",
                above(1),
                _strongest_keeps,
                "higher",
                TIMES,
            ),
            Criterion(
                "accuracy with the largest coefficient less that without",
                below(0),
                _strongest_costs,
                "lower",
                GAIN,
            ),
            Criterion(
                "accuracy of the best coefficient of all tried (too high by chance) less that without",
                at_most(ONE_POINT),
                _best_gain("fig10", _reference),
                "not better",
                GAIN,
            ),
        ),
    ),
    Claim(
        key="controllable",
        statement="The coefficients of Clip-Cov and KL-Cov set the level of entropy",
        source="Fig 12, Section 4.5",
        items=("fig12",),
        criteria=(
            *(
                Criterion(
                    f"rank correlation of {name} and final entropy",
                    at_least(0.8),
                    _monotone("fig12", read),
                    "drawn in order",
                    PLAIN,
                )
                for name, read in SWEEPS.items()
            ),
            *(
                Criterion(
                    f"highest over lowest final entropy by {name}",
                    at_least(1.5),
                    _range("fig12", read),
                    "not given",
                    TIMES,
                )
                for name, read in SWEEPS.items()
            ),
        ),
    ),
)
