"""Two experiments side by side: numbers, verdicts, settings and curves are those of the two."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from figure_frames import FINAL, make_frames
from matplotlib.colors import to_hex
from scipy import stats

from entropy_mechanism.figures import style
from entropy_mechanism.report import Results, beside, judge_all
from entropy_mechanism.report.beside import draw

OTHER = {"grpo": FINAL["grpo"] * 3, "kl-cov": FINAL["kl-cov"]}


def results(name, frames, settings=()):
    claims = judge_all(frames, {item: set(frames["runs"]["run"]) for item in ("fig01", "fig11", "table2")})
    return Results(name, frames, claims, dict(settings))


@pytest.fixture(scope="module")
def mine():
    return results("mine", make_frames(seeds=(0, 1, 2), methods=("grpo", "kl-cov", "clip-cov")))


@pytest.fixture(scope="module")
def other():
    return results("other", make_frames(seeds=(0, 1), methods=("grpo", "kl-cov"), final=OTHER))


def row(table, method):
    return table.set_index("Method").loc[method]


def ends(frames, method, column):
    """Means over the last tenth of every seed: five of 41 steps, two of 11 validations."""
    curves = frames["curves"][frames["curves"]["method"] == method]
    return [
        run[column].dropna().tail(math.ceil(0.1 * run[column].count())).mean() for _, run in curves.groupby("seed")
    ]


def test_ends_are_means_over_seeds_and_differences_have_welchs_interval(mine, other):
    table = beside(mine, other).methods
    found = row(table, "grpo")
    a, b = (100 * np.array(ends(side.frames, "grpo", style.ACCURACY)) for side in (mine, other))
    assert found["Seeds"] == "3, 2"
    assert found["Validation (%): here"] == pytest.approx(a.mean())
    assert found["Validation (%): other"] == pytest.approx(b.mean())
    variances = [values.var(ddof=1) / len(values) for values in (a, b)]
    freedom = sum(variances) ** 2 / sum(v**2 / (len(x) - 1) for v, x in zip(variances, (a, b), strict=True))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(variances))
    difference, interval = re.fullmatch(r"([+−][\d.]+) ± ([\d.]+)", found["Validation (%): difference"]).groups()
    assert float(difference.replace("−", "-")) == pytest.approx(a.mean() - b.mean(), abs=0.051)
    assert float(interval) == pytest.approx(half, abs=0.051)
    h, g = (np.mean(ends(side.frames, "grpo", style.ENTROPY)) for side in (mine, other))
    assert found["Entropy: ratio"] == pytest.approx(h / g)


def test_a_method_that_one_of_them_lacks_is_shown_without_a_difference(mine, other):
    found = row(beside(mine, other).methods, "clip-cov")
    assert found["Seeds"] == "3, 0"
    assert math.isnan(found["Validation (%): other"])
    assert found["Validation (%): difference"] == "–"
    assert math.isnan(found["Entropy: ratio"])
    assert row(beside(other, mine).methods, "clip-cov")["Seeds"] == "0, 3"


def test_only_runs_with_the_same_numbers_are_called_the_same(mine, other):
    again = results("again", make_frames(seeds=(0, 1, 2), methods=("grpo", "kl-cov")))
    table = beside(mine, again).methods
    assert row(table, "grpo")["Seeds"] == "3, 3: the same runs"
    assert row(beside(mine, other).methods, "kl-cov")["Seeds"] == "3, 2"
    assert row(beside(again, other).methods, "grpo")["Seeds"] == "3, 2"


def test_without_several_seeds_a_difference_has_no_interval(other):
    single = results("single", make_frames(methods=("grpo",)))
    assert "±" not in row(beside(single, other).methods, "grpo")["Validation (%): difference"]


def test_benchmarks_are_pooled_over_those_that_both_have_answered(mine, other):
    def scored(side, benchmarks):
        rows = [
            {"policy": run, "benchmark": name, "protocol": "greedy", "problems": n, "samples": n, "score": score}
            for run in side.frames["runs"]["run"]
            for name, (n, score) in benchmarks.items()
        ]
        pooled = sum(n * score for n, score in benchmarks.values()) / sum(n for n, _ in benchmarks.values())
        rows += [
            {"policy": run, "benchmark": "pooled", "protocol": "mixed", "samples": 40, "score": pooled}
            for run in side.frames["runs"]["run"]
        ]
        scores = pd.DataFrame(rows).assign(low=math.nan, high=math.nan)
        clean = {f"clean_{name}": scores[name] for name in ("problems", "samples", "score", "low", "high")}
        return Results(side.name, {**side.frames, "scores": scores.assign(**clean)}, side.claims, {})

    a = scored(mine, {"easy": (10, 0.9), "hard": (30, 0.3), "mine": (1000, 1.0)})
    b = scored(other, {"easy": (10, 0.8), "hard": (30, 0.2)})
    found = row(beside(a, b).methods, "grpo")
    assert found["Benchmarks (%): here"] == pytest.approx(100 * (10 * 0.9 + 30 * 0.3) / 40)
    assert found["Benchmarks (%): other"] == pytest.approx(100 * (10 * 0.8 + 30 * 0.2) / 40)


def test_verdicts_that_differ_are_in_bold_and_counted(mine):
    few = results("few", make_frames(methods=("grpo", "kl-cov"), final={"grpo": 0.3, "kl-cov": 0.01}))
    found = beside(mine, few)
    here, there = (
        {judged.claim.statement: judged.verdict for judged in side.claims if judged.measured}
        for side in (mine, few)
    )
    shown = found.verdicts.set_index("Claim")
    differing = {name for name in here.keys() & there.keys() if here[name] != there[name]}
    assert set(shown.index) == here.keys() | there.keys()
    assert 0 < len(differing) < len(here.keys() & there.keys()) < len(shown)
    assert set(shown.index[shown["Here"].str.startswith("**")]) == differing
    assert found.other_verdicts == len(differing)
    for column, verdicts in (("Here", here), ("few", there)):
        for claim, verdict in verdicts.items():
            assert shown.loc[claim, column].replace("**", "").startswith(f"{verdict}, ")


def test_settings_that_differ_are_named_by_their_keys(mine, other):
    a = {"title": "A", "training": {"lr": 0.1, "steps": 5}, "methods": {"grpo": {"x": 1}, "own": {"y": [1, 2]}}}
    b = {"title": "B", "training": {"lr": 0.2, "steps": 5}, "methods": {"grpo": {"x": 1}}}
    found = beside(results("mine", mine.frames, a), results("other", other.frames, b)).settings
    assert found.to_numpy().tolist() == [["training.lr", "0.1", "0.2"], ["methods.own", '{"y": [1, 2]}', "–"]]


def test_curves_have_a_colour_for_each_method_and_dashes_for_the_other_experiment(mine, other):
    entropy, accuracy = draw(mine, other).axes
    for axes, column, unit in ((entropy, style.ENTROPY, 1), (accuracy, style.ACCURACY, 100)):
        lines = {(to_hex(line.get_color()).upper(), line.get_linestyle()): line for line in axes.lines}
        colours = {method: style.method_look(method).colour.upper() for method in ("grpo", "kl-cov")}
        assert set(lines) == {(colour, dashes) for colour in colours.values() for dashes in ("-", "--")}
        for side, dashes in ((mine, "-"), (other, "--")):
            curves = side.frames["curves"]
            mean = curves[curves["method"] == "grpo"].groupby("step")[column].mean().dropna()
            assert lines[colours["grpo"], dashes].get_ydata() == pytest.approx(unit * mean.to_numpy())


def test_experiments_with_nothing_in_common_are_drawn_whole(mine):
    far = results("far", make_frames(models=("another",), methods=("rloo",)))
    assert len(draw(mine, far).axes) == 4
    assert set(beside(mine, far).methods["Seeds"]) == {"3, 0", "0, 1"}
