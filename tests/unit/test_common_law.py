"""One curve or several: the level and the power of the test, with and without differences between seeds."""

import numpy as np
import pytest
from synthetic_runs import A, B, curves_of, run_points, training

from entropy_mechanism.analysis.common_law import COMMON_LAW_COLUMNS, common_law

METHODS = ("grpo", "rloo", "prime", "reinforce++")


def experiment(random, persistence, shift=0.0, seeds=(1, 1, 1, 1), spread=0.0, points=38):
    """Curves of four methods; `shift` raises the second's curve, `spread` is the deviation between seeds."""
    runs = []
    for method, count in zip(METHODS, seeds, strict=True):
        for seed in range(count):
            entropy, accuracy = training(points, persistence, random)
            accuracy = accuracy + random.normal(0, spread) + (shift if method == "rloo" else 0)
            runs.append(run_points(entropy, accuracy, method, seed))
    return curves_of(*runs)


def rejected(trials, **settings):
    """Share of experiments in which the test finds several curves, and the name of the test."""
    random, found = np.random.default_rng(11), []
    for trial in range(trials):
        found.append(common_law(experiment(random, **settings), seed=trial, resamples=199).iloc[-1])
    return np.mean([row["verdict"] == "several curves" for row in found]), {row["test"] for row in found}


@pytest.mark.parametrize("persistence", [0.0, 0.5, 0.8])
def test_autocorrelated_noise_of_one_curve_is_rarely_called_several(persistence):
    share, tests = rejected(60, persistence=persistence)
    assert tests == {"residual bootstrap"}
    assert share <= 0.11  # nominal 0.05, standard error 0.028


def test_several_curves_are_found():
    assert rejected(20, persistence=0.0, shift=0.02)[0] >= 0.95
    assert rejected(20, persistence=0.5, shift=0.03)[0] >= 0.9


def test_differences_between_seeds_are_not_called_differences_between_methods():
    permuted = rejected(50, persistence=0.5, seeds=(3, 3, 3, 3), spread=0.01)
    assert permuted[1] == {"label permutation"}
    assert permuted[0] <= 0.12
    shifted = rejected(50, persistence=0.5, seeds=(3, 1, 1, 1), spread=0.01)
    assert shifted[1] == {"residual and seed bootstrap"}
    assert shifted[0] <= 0.12
    # what the guard is for: from single runs the same differences look like several curves
    assert rejected(25, persistence=0.0, spread=0.01)[0] >= 0.7


def test_several_curves_are_found_beyond_the_differences_between_seeds():
    assert rejected(20, persistence=0.5, seeds=(3, 3, 3, 3), spread=0.01, shift=0.04)[0] >= 0.85


def test_curves_are_those_of_least_squares_and_the_statistic_is_f():
    random = np.random.default_rng(5)
    curves = experiment(random, 0.0, shift=0.02)
    found = common_law(curves, seed=0, resamples=99)
    assert list(found.columns) == COMMON_LAW_COLUMNS
    assert found["method"].tolist() == [*METHODS, "common"]
    squares, points = {}, len(curves)
    for method, rows in [*curves.groupby("method"), ("common", curves)]:
        x, y = np.exp(rows["entropy/sequence_mean/after_filter"]), rows["validation/accuracy"]
        slope, level = np.polyfit(x, y, 1)
        squares[method] = ((level + slope * x - y) ** 2).sum()
        row = found.set_index("method").loc[method]
        assert (row["a"], row["b"]) == pytest.approx((-slope, level))
        assert row["ceiling"] == pytest.approx(level + slope)
        assert row["rmse"] == pytest.approx(np.sqrt(squares[method] / len(rows)))
        assert row["a_low"] < row["a"] < row["a_high"]
    separate = sum(squares[method] for method in METHODS)
    f = (squares["common"] - separate) / 6 / (separate / (points - 8))
    assert found["statistic"].tolist() == pytest.approx([f] * 5)
    assert found["p"].nunique() == found["verdict"].nunique() == 1
    assert found["delta_aicc"].iloc[0] < 0  # clearly several curves


def test_intervals_of_the_common_curve_cover():
    random, hits = np.random.default_rng(6), np.zeros(3)
    for trial in range(80):
        row = common_law(experiment(random, 0.5), seed=trial, resamples=300).iloc[-1]
        for i, (name, truth) in enumerate((("a", A), ("b", B), ("ceiling", B - A))):
            hits[i] += row[f"{name}_low"] <= truth <= row[f"{name}_high"]
    assert (hits / 80 >= 0.88).all(), hits  # nominal 0.95, standard error 0.024


def test_groups_are_tested_apart_and_small_ones_not_at_all():
    random = np.random.default_rng(7)
    curves = experiment(random, 0.0)
    other = curves[curves["method"].isin(["grpo", "rloo"])].assign(model="n")
    other["run"] = "n" + other["run"].str[1:]
    short = other[(other["method"] == "grpo") | (other["step"] < 20)]  # five points of RLOO
    found = common_law(curves.iloc[::-1], 0, 99), common_law(short, 0, 99)
    assert set(found[0]["model"]) == {"m"}
    assert found[1]["verdict"].tolist() == ["not enough points"] * 3
    assert found[1]["p"].isna().all()
    assert np.isnan(found[1].set_index("method").loc["rloo", "a"])
    assert common_law(curves.iloc[:0], 0, 99).empty
