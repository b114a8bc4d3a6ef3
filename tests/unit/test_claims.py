"""Verdicts say what the frames say: known truth in, known verdict out, and never an error."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from invented_results import invent
from scipy.stats import ttest_ind

from entropy_mechanism.analysis.columns import ENTROPY_BEFORE_FILTER
from entropy_mechanism.figures import style
from entropy_mechanism.report.claims import CLAIMS, RULES, Evidence, judge, judge_all
from entropy_mechanism.report.claims.criteria import (
    AGREES,
    CLEAR,
    DISAGREES,
    IN_PART,
    LIKELY,
    NOT_MEASURED,
    OPEN,
)

RIGHT, WRONG = invent(True), invent(False)
SMALL = invent(True, seeds=(0,))


def verdicts(frames, shown):
    return {judged.claim.key: judged for judged in judge_all(frames, shown)}


@pytest.mark.parametrize("key", [claim.key for claim in CLAIMS])
def test_every_claim_is_found_where_it_holds_and_missed_where_it_does_not(key):
    (claim,) = (claim for claim in CLAIMS if claim.key == key)
    (right,), (wrong,) = (judge([claim], Evidence(*world)) for world in (RIGHT, WRONG))
    assert right.verdict == AGREES, [(f.criterion.name, f.obtained, f.basis) for f in right.findings]
    assert wrong.verdict == DISAGREES, [(f.criterion.name, f.obtained, f.basis) for f in wrong.findings]


def test_three_seeds_with_narrow_intervals_are_clear_and_one_seed_is_not():
    three, one = verdicts(*RIGHT), verdicts(*SMALL)
    assert {key for key, judged in three.items() if judged.certainty == CLEAR} >= {
        *("bought", "early", "law", "forecast", "data", "theory", "tracks", "positive", "difficulty", "tail"),
        *("bonus", "reference", "keep", "longer", "accuracy", "controllable", "benchmarks", "scope"),
    }
    assert {judged.verdict for judged in one.values()} == {AGREES}
    assert {key for key, judged in one.items() if judged.certainty == CLEAR} == {"necessary"}  # exact
    assert one["benchmarks"].certainty == one["difficulty"].certainty == LIKELY  # intervals within the run
    assert one["accuracy"].certainty == OPEN
    assert one["accuracy"].reasons == "1 seed, 2 of 2 without an interval"


def reasons_without(kind, frames):
    """The reasons of what is not measured any more; every other claim still holds."""
    found = judge_all(frames, SMALL[1])
    assert {judged.verdict for judged in found} <= {AGREES, IN_PART, NOT_MEASURED}
    return {finding.reason for judged in found for finding in judged.findings if finding.met is None}


@pytest.mark.parametrize("kind", sorted(RIGHT[0]))
def test_a_missing_file_is_a_reason_and_no_error(kind):
    frames = SMALL[0]
    reasons = reasons_without(kind, {name: frame for name, frame in frames.items() if name != kind})
    assert all(f"{kind}.parquet" in reason for reason in reasons)
    assert bool(reasons) != kind.startswith("published")


def test_missing_rows_and_columns_are_reasons_too():
    frames = SMALL[0]
    for kind in ("curves", "ceiling"):
        assert reasons_without(kind, frames | {kind: frames[kind].iloc[:0]})
        reasons = reasons_without(kind, frames | {kind: frames[kind][["run"]]})
        assert reasons
        assert all("has no column" in reason for reason in reasons)


def test_nothing_at_all_is_not_measured():
    for judged in judge_all({}, {}):
        assert judged.verdict == NOT_MEASURED
        assert judged.certainty == ""
        assert judged.reasons


@pytest.mark.parametrize("item", sorted(RIGHT[1]))
def test_an_experiment_without_an_item_says_so(item):
    frames, shown = SMALL
    found = verdicts(frames, {name: runs for name, runs in shown.items() if name != item})
    assert all(judged.verdict != DISAGREES for judged in found.values())


@pytest.mark.parametrize(
    "kinds", [tuple(RIGHT[0]), ("curves",), ("law", "forecasts"), ("dynamics", "entropy_change")]
)
def test_numbers_that_are_not_numbers_decide_nothing(kinds):
    frames, shown = SMALL
    keep = {"step", "seed", "window", "fraction", "step_size", "non_embedding_parameters", "updates_per_rollout"}
    broken = {}
    for kind in kinds:
        numbers = [name for name in frames[kind].select_dtypes("number") if name not in keep]
        broken[kind] = frames[kind].assign(**dict.fromkeys(numbers, math.nan))
    found = judge_all(frames | broken, shown)
    for finding in (finding for judged in found for finding in judged.findings):
        assert finding.estimate is None or math.isfinite(finding.estimate.value)
        assert "nan" not in finding.obtained
    assert all(judged.verdict != DISAGREES for judged in found)


def test_only_the_runs_of_an_item_enter_its_claims():
    frames, shown = RIGHT
    alone = shown | {"fig01": {"big--chains--grpo--s0"}}
    curves = frames["curves"]
    one = curves[curves["run"] == "big--chains--grpo--s0"][style.ENTROPY]
    found = verdicts(frames, alone)["bought"].findings[0].estimate
    assert (found.runs, found.seeds) == (1, 1)
    assert found.value == pytest.approx(one.tail(math.ceil(0.1 * len(one))).mean() / one.iloc[0])


def finding(key, start, world):
    """The finding of a claim's criterion whose name starts so."""
    (claim,) = (claim for claim in CLAIMS if claim.key == key)
    (judged,) = judge([claim], Evidence(*world))
    (found,) = (found for found in judged.findings if found.criterion.name.startswith(start))
    return found


def test_a_seed_with_one_coefficient_shows_no_sweep():
    for start in ("highest over lowest final entropy by Clip", "rank correlation of Clip"):
        assert finding("controllable", start, RIGHT).estimate.runs == 3
    found = finding("controllable", "highest over lowest final entropy by Clip", RIGHT).estimate
    fall = np.exp(-np.arange(41) / 6)[-5:].mean()  # the last tenth of 41 steps
    highest, lowest = (level + (0.5 - level) * fall for level in (0.3, 0.05))
    assert found.value == pytest.approx(highest / lowest, rel=1e-3)


def test_noise_of_prompts_is_no_change_that_other_prefixes_make():
    every, fall = 5, -0.01
    noise = np.random.default_rng(0).normal(scale=0.03, size=41)
    frames, shown = SMALL
    curves = frames["curves"]
    curves = curves.assign(**{ENTROPY_BEFORE_FILTER: 1 + fall * curves["step"] + noise[curves["step"]]})
    changes = frames["entropy_change"]
    changes = changes[changes["step"] % every == 0].assign(same_prefix=fall)
    measured = fall + np.append(np.diff(noise), np.nan)
    changes = changes.assign(state_distribution=(measured - fall)[changes["step"]])
    world = (frames | {"curves": curves, "entropy_change": changes}, shown)
    found = finding("states", "entropy change over training", world).estimate
    summed = changes[changes["run"] == changes["run"].iloc[0]][["state_distribution", "same_prefix"]].sum()
    assert abs(summed["state_distribution"] / summed["same_prefix"]) > 0.5  # what the measured steps alone say
    assert found.value < 0.1


def of_sets(sets):
    """Frames with fits whose a is that of each seed by training set, with intervals of +-0.02; what is shown."""
    names = [("big", name, seed, a) for name, values in sets.items() for seed, a in enumerate(values)]
    rows = pd.DataFrame(names, columns=["model", "train_set", "seed", "a"])
    rows["run"] = [f"{name}--s{seed}" for _, name, seed, _ in names]
    rows = rows.assign(method="grpo", task="math", non_embedding_parameters=1e7)
    curves = pd.concat([rows.assign(step=n, gradient_steps=n) for n in range(3)]).drop(columns=["a"])
    curves = curves.assign(**{style.ENTROPY: 0.5, style.ACCURACY: 0.5})
    law = rows.assign(a_low=rows["a"] - 0.02, a_high=rows["a"] + 0.02)
    return {"law": law, "curves": curves, "runs": rows.drop(columns="a")}, {"fig13": set(rows["run"])}


def test_seeds_that_lie_apart_are_no_difference_between_training_sets():
    seeds = np.random.default_rng(0).normal(0.2, 0.1, size=(40, 2, 3))  # far beyond the fits' own intervals
    found = [finding("data", "p of equal a", of_sets({"one": x, "two": y})) for x, y in seeds]
    assert np.mean([entry.estimate.value < 0.05 for entry in found]) <= 0.1
    assert np.mean([entry.met and entry.decided for entry in found]) <= 0.05
    apart = finding("data", "p of equal a", of_sets({"one": [0.1, 0.12, 0.11], "two": [0.9, 0.93, 0.91]}))
    assert apart.met
    assert apart.decided


def test_p_values_near_the_bound_and_those_of_single_seeds_decide_nothing():
    single = finding("data", "p of equal a", of_sets({"one": [0.1], "two": [0.9]}))
    assert single.met
    assert not single.decided
    one = np.array([-0.1, 0.0, 0.1])
    for shift in (0.2, 0.23, 0.26):
        near = finding("data", "p of equal a", of_sets({"one": one, "two": one + shift}))
        assert near.estimate.value == pytest.approx(ttest_ind(one, one + shift).pvalue, rel=0.1)
        assert 0.02 < near.estimate.value < 0.09
        assert not near.decided


def test_training_sets_are_compared_for_the_model_of_fig_13():
    frames, shown = of_sets({"one": [0.1, 0.12], "two": [0.9, 0.93]})
    larger = {"model": "huge", "train_set": "one", "run": "huge--s0", "non_embedding_parameters": 1e9}
    frames = {name: pd.concat([frame, frame.iloc[:1].assign(**larger)]) for name, frame in frames.items()}
    shown = {"fig13": {*shown["fig13"], "huge--s0"}}
    assert finding("data", "p of equal a", (frames, shown)).estimate.runs == 4


def test_only_runs_that_keep_entropy_are_held_against_the_curve():
    frames, shown = RIGHT
    judged = finding("curve", "share of runs with more entropy within", RIGHT)
    ceiling = frames["ceiling"]
    small = ceiling["method"].isin(["kl-cov", "kl-cov-old"])  # end at 0.3, GRPO at 0.02
    frames = frames | {"ceiling": ceiling[small | (ceiling["method"] == "on-policy")]}  # as GRPO itself
    curves = frames["curves"]
    lost = curves["method"] == "on-policy"
    frames["curves"] = curves.assign(**{style.ENTROPY: curves[style.ENTROPY].where(~lost, 0.001)})
    found = finding("curve", "share of runs with more entropy within", (frames, shown)).estimate
    assert judged.decided
    assert (found.runs, found.value, found.low, found.high) == (6, 1, 1, 1)


@pytest.mark.parametrize(
    ("low", "high", "value", "decided"),
    [
        (-0.02, 0.02, 1, True),
        (-0.3, 0.3, 0, False),  # too wide to say
        (-0.01, 0.03, 0, False),
        (0.021, 0.03, 0, True),
        (-0.05, -0.03, 0, True),
    ],
)
def test_on_the_curve_means_the_whole_interval_within_two_points(low, high, value, decided):
    frames, shown = RIGHT
    ceiling = frames["ceiling"].assign(residual_low=low, residual_high=high)
    found = finding("curve", "share of runs with more entropy within", (frames | {"ceiling": ceiling}, shown))
    assert found.estimate.value == value
    assert found.decided == decided


def test_a_run_that_may_be_above_the_ceiling_leaves_the_share_open():
    frames, shown = RIGHT
    ceiling = frames["ceiling"]
    one = (ceiling["method"] == "kl-cov") & (ceiling["seed"] == 0)
    ceiling = ceiling.assign(excess_high=ceiling["excess_high"].mask(one, 0.01))
    found = finding("curve", "share of runs with more entropy above", (frames | {"ceiling": ceiling}, shown))
    assert found.met
    assert not found.decided
    assert finding("curve", "share of runs with more entropy above", RIGHT).decided


def test_scopes_are_compared_with_the_default_and_beside_what_seeds_differ_by():
    frames, shown = RIGHT
    shown = {
        "selection": {f"big--chains--{name}--s{seed}" for name in ("clip-cov", "micro", "roll") for seed in (0, 1)}
    }
    ends = {"clip-cov": (0.1, 0.2), "micro": (0.2, 0.1), "roll": (0.4, 0.8)}
    scopes = {"clip-cov": "minibatch", "micro": "microbatch", "roll": "rollout"}
    curves, runs = [], []
    for name, levels in ends.items():
        for seed, level in enumerate(levels):
            names = {"run": f"big--chains--{name}--s{seed}", "model": "big", "train_set": "chains", "method": name}
            names["seed"] = seed
            runs.append(frames["runs"].iloc[0].to_dict() | names)
            runs[-1]["objective"] = json.dumps({"name": "clip-cov", "fraction": 0.02, "scope": scopes[name]})
            curves += [names | {"step": n, style.ENTROPY: level, style.ACCURACY: level} for n in range(3)]
    world = {"runs": pd.DataFrame(runs), "curves": pd.DataFrame(curves)}, shown
    factor = finding("scope", "factor between final entropies of the default", world).estimate
    # factors 2, 2, 4 and 4 to the default, 2 between its seeds; microbatch and rollout are no pair
    assert factor.runs == 4
    assert factor.value == pytest.approx(math.sqrt(2 * 4) / 2)
    gap = finding("scope", "difference of their final", world).estimate
    assert gap.value == pytest.approx((0.1 + 0.1 + 0.3 + 0.6) / 4 - 0.1)
    alone = {"selection": {run for run in shown["selection"] if run.endswith("s0")}}
    assert not finding("scope", "factor between final entropies of the default", (world[0], alone)).decided


def test_sizes_are_judged_on_each_task():
    frames, shown = RIGHT
    law = frames["size_law"]
    sinking = frames | {"size_law": law.assign(slope=law["slope"].mask(law["task"] == "code", -0.05))}
    assert finding("size", "slope of a per unit of ln parameters, math", (sinking, shown)).met
    assert not finding("size", "slope of a per unit of ln parameters, code", (sinking, shown)).met
    math_alone = frames | {"size_law": law[law["task"] == "math"]}
    assert finding("size", "slope of a per unit of ln parameters, code", (math_alone, shown)).met is None


def test_a_model_of_one_seed_weighs_as_much_in_a_claim_as_one_of_three():
    frames, shown = RIGHT
    left = frames["consumption"]
    more = left[left["train_set"] == "chains"].query("method == 'grpo' and seed == 0")
    run = "huge--chains--grpo--s0"
    more = more.assign(model="huge", run=run, entropy_left=1.0)
    known = frames["runs"]
    world = frames | {
        "consumption": pd.concat([left, more]),
        "runs": pd.concat([known, known.iloc[:1].assign(run=run, model="huge")]),
    }
    found = finding("early", "entropy left after a third", (world, shown | {"fig02": {*shown["fig02"], run}}))
    assert found.estimate.value == pytest.approx((0.05 * 1.01 + 1) / 2)


def test_ratios_are_averaged_by_their_logarithms():
    frames, shown = RIGHT
    forms = frames["forms"]
    errors = forms["seed"].map({0: 0.01, 1: 0.02, 2: 0.08}).where(forms["form"] == "exponential", 0.01)
    found = finding("form", "error on blocks", (frames | {"forms": forms.assign(blocked_rmse=errors)}, shown))
    assert found.estimate.value == pytest.approx(16 ** (1 / 3))  # the mean of 1, 2 and 8 is 3.7
    forecasts = frames["forecasts"]
    back = (forecasts["direction"] == "reversed") & (forecasts["fraction"] == 0.5)
    errors = forecasts["seed"].map({0: 0.01, 1: 0.02, 2: 0.08}).where(back, 0.01)
    found = finding(
        "backwards", "error of the early", (frames | {"forecasts": forecasts.assign(rmse=errors)}, shown)
    )
    assert found.estimate.value == pytest.approx(16 ** (1 / 3))
    curves = frames["curves"]
    ends = curves["seed"].map({0: 0.01, 1: 0.02, 2: 0.08}).where(curves["step"] > 30, 0.5)
    found = finding(
        "bought", "entropy at the end", (frames | {"curves": curves.assign(**{style.ENTROPY: ends})}, shown)
    )
    assert found.estimate.value == pytest.approx(16 ** (1 / 3) / 50)


def test_claims_are_named_once_and_say_when_they_hold():
    keys = [claim.key for claim in CLAIMS]
    assert len(set(keys)) == len(keys)
    for claim in CLAIMS:
        assert claim.criteria
        assert claim.source
        for criterion in claim.criteria:
            assert criterion.name in claim.rule
            assert criterion.bound.text(criterion.unit) in claim.rule
    assert all(sentence.endswith(".") for sentence in RULES)


def test_published_numbers_are_those_of_the_paper():
    found = {
        (judged.claim.key, finding.criterion.name): finding.published
        for judged in judge_all(*RIGHT)
        for finding in judged.findings
    }
    assert found["early", "entropy left after a third of training"] == "6 %"
    assert found["forecast", "error over the rest, code"] == "1.2 points"
    assert found["benchmarks", "average over all problems of KL-Cov less GRPO's"] == "+2.0 (7B), +6.4 (32B)"
    assert found["benchmarks", "mean over benchmarks of Clip-Cov less GRPO's"] == "+2.7 (7B), +5.5 (32B)"
    assert found["tail", "mean of the top 0.2 % of tokens over that of the upper half"] == "20.5 times"
    assert found["form", next(c.criteria[0].name for c in CLAIMS if c.key == "form")] == "1 of 2 published curves"
    near, above_ceiling = (text for (key, _), text in found.items() if key == "curve")
    assert (near, above_ceiling) == ("0 of 3 in its own Fig 11", "3 of 3 in its own Fig 11")
    assert found["form", "error on blocks left out, over that of the best form"] == "3 times"
    assert [text for (key, _), text in found.items() if key == "backwards"] == ["7 times"]
    assert found["size", "slope of b per unit of ln parameters, math"] == "0.116"
    assert found["law", "residual error of the fit"] == "1.5 points"
