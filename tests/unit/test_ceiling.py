"""The ceiling test: false positives, power, seeds, points out of range, and what it says of the paper's Fig 11."""

import math

import numpy as np
import pytest
from synthetic_runs import A, B, curves_of, run_points, training

from entropy_mechanism.analysis.ceiling import CEILING_COLUMNS, ceiling_test
from entropy_mechanism.analysis.published import joined
from entropy_mechanism.figures import published

ABOVE = ("above curve", "above ceiling")


def verdicts(trials, persistence, shift=0.0, seeds=1, spread=0.0, points=38, resamples=100, **settings):
    """The test's rows for one intervention a trial, whose accuracy rises to `shift` above the curve."""
    random, rows = np.random.default_rng(21), []
    for trial in range(trials):
        runs = []
        for seed in range(seeds):
            entropy, accuracy = training(points, persistence, random)
            runs.append(run_points(entropy, accuracy + random.normal(0, spread), seed=seed))
        entropy, accuracy = training(points, persistence, random, **{"last": 0.15} | settings)
        accuracy = accuracy + random.normal(0, spread) + shift * np.sqrt(np.linspace(0, 1, points))
        runs.append(run_points(entropy, accuracy, "clip-cov"))
        rows.append(ceiling_test(curves_of(*runs), trial, resamples).iloc[0])
    return rows


def share(rows, *names):
    return np.mean([row["verdict"] in names for row in rows])


@pytest.mark.parametrize("persistence", [0.0, 0.5, 0.8])
def test_an_intervention_on_the_curve_is_rarely_put_off_it(persistence):
    rows = verdicts(100, persistence)
    assert share(rows, *ABOVE) <= 0.10  # nominal 0.025 on each side, standard error 0.016
    assert share(rows, "below curve") <= 0.10
    assert share(rows, "above ceiling") <= 0.04


def test_a_run_like_the_baselines_rarely_passes_the_ceiling():
    rows = verdicts(40, 0.5, last=0.02)
    # luck alone puts its largest accuracy above the ceiling, most of the time
    assert np.mean([row["excess"] > 0 for row in rows]) > 0.5
    assert share(rows, "above ceiling") <= 0.04


def test_accuracies_above_curve_and_ceiling_are_found():
    assert share(verdicts(15, 0.5, shift=0.03), *ABOVE) >= 0.9
    assert share(verdicts(15, 0.5, shift=0.09), "above ceiling") >= 0.9
    assert share(verdicts(15, 0.5, shift=-0.03), "below curve") >= 0.9


def test_differences_between_seeds_widen_the_intervals_from_three_seeds_on():
    rows = verdicts(30, 0.5, seeds=3, spread=0.02)
    assert all(row["seed_spread"] > 0 for row in rows)
    assert share(rows, *ABOVE, "below curve") <= 0.15
    # what the guard is for: with one seed of the baseline nothing is known of them
    rows = verdicts(25, 0.5, seeds=1, spread=0.02)
    assert all(math.isnan(row["seed_spread"]) for row in rows)
    assert share(rows, *ABOVE, "below curve") >= 0.3


def test_a_common_curve_of_another_form_is_told_by_the_residual_from_any_curve():
    curve = lambda entropy: 0.3 - 0.03 * np.log(entropy)  # noqa: E731
    random, hits = np.random.default_rng(3), {"residual": 0, "any_curve_residual": 0}
    for trial in range(20):
        runs = [run_points(*training(60, 0.3, random, curve, spread=0.003))]
        runs.append(run_points(*training(60, 0.3, random, curve, spread=0.003, last=0.05), method="clip-cov"))
        row = ceiling_test(curves_of(*runs), trial, 150).iloc[0]
        for name in hits:
            hits[name] += not row[f"{name}_low"] <= 0 <= row[f"{name}_high"]
    assert hits["residual"] >= 14  # the law is not the curve, so the run is not on the law
    assert hits["any_curve_residual"] <= 3


def test_numbers_are_distances_from_the_pooled_fit():
    random = np.random.default_rng(4)
    base = [run_points(*training(24, 0.0, random), seed=seed) for seed in (1, 2)]
    entropy, accuracy = training(24, 0.0, random, last=0.15)
    accuracy = accuracy + np.linspace(0, 0.1, 24)
    run = run_points(entropy, accuracy, "kl-cov")
    row = ceiling_test(curves_of(*base, run), 0, 200).iloc[0]
    x = np.exp(np.concatenate([one.entropy for one in base]))
    slope, level = np.polyfit(x, np.concatenate([one.accuracy for one in base]), 1)
    assert (row["baseline_a"], row["baseline_b"]) == pytest.approx((-slope, level))
    assert row["baseline_ceiling"] == pytest.approx(level + slope)
    late = slice(-6, None)
    assert row["residual"] == pytest.approx((accuracy - level - slope * np.exp(entropy))[late].mean())
    assert row["excess"] == pytest.approx(accuracy.max() - level - slope)
    own = [(one.accuracy - level - slope * np.exp(one.entropy))[late].mean() for one in base]
    assert row["baseline_residual"] == pytest.approx(np.mean(own))
    assert row["baseline_excess"] == pytest.approx(max(one.accuracy.max() for one in base) - level - slope)
    assert row["residual_low"] < row["residual"] < row["residual_high"]
    assert (row["baseline_runs"], row["points"], row["share_in_range"]) == (2, 24, 1)


def test_the_ceiling_is_passed_where_accuracies_rise_above_it_to_stay():
    entropy = np.linspace(0.5, 0.02, 20)
    base = run_points(entropy, B - A * np.exp(entropy))
    accuracy = np.full(20, 0.3)
    accuracy[3] = 0.5  # one point alone
    accuracy[12:] = 0.45
    row = ceiling_test(curves_of(base, run_points(entropy, accuracy, "clip-cov")), 0, 50).iloc[0]
    assert row["passes_ceiling_at"] == 8 * 4 * 12
    low = run_points(entropy, np.full(20, 0.3), "clip-cov")
    assert math.isnan(ceiling_test(curves_of(base, low), 0, 50).iloc[0]["passes_ceiling_at"])


def test_a_run_out_of_the_baselines_entropies_is_not_judged_by_a_continued_curve():
    random = np.random.default_rng(5)
    base = run_points(*training(30, 0.0, random))
    grown = run_points(np.linspace(0.5, 4, 30), np.full(30, 0.1), "clip-cov")  # entropy explodes
    row = ceiling_test(curves_of(base, grown), 0, 50).iloc[0]
    assert (row["verdict"], row["share_in_range"]) == ("not enough points", 0)
    assert math.isnan(row["residual"])
    assert row["excess_high"] < 0


def test_only_baselines_of_the_same_model_and_training_set_count():
    random = np.random.default_rng(6)
    base, other = (run_points(*training(20, 0.0, random), method) for method in ("grpo", "kl-cov"))
    curves = curves_of(base, other)
    elsewhere = curves.assign(train_set=np.where(curves["method"] == "grpo", "t", "u"))
    found = ceiling_test(elsewhere, 0, 50)
    assert list(found.columns) == CEILING_COLUMNS
    assert found["verdict"].tolist() == ["not enough points"]
    assert found["baseline_runs"].tolist() == [0]
    assert ceiling_test(curves, 0, 50)["verdict"].tolist() != ["not enough points"]
    short = curves[(curves["method"] == "grpo") | (curves["step"] < 28)]  # seven points
    assert ceiling_test(short, 0, 50)["verdict"].tolist() == ["not enough points"]
    assert ceiling_test(curves[curves["method"] == "grpo"], 0, 50).empty
    assert ceiling_test(curves.iloc[:0], 0, 50).empty


@pytest.fixture(scope="module")
def paper():
    models = ("qwen2.5-7b", "qwen2.5-32b")
    parts = [joined(published.load(f"fig11_{model}"), "fig11", model, "dapo-math") for model in models]
    found = [ceiling_test(part, 0, 500) for part in parts]
    return {model: frame.set_index("method") for model, frame in zip(models, found, strict=True)}


def test_every_intervention_of_the_paper_ends_above_the_baselines_curve_and_reaches_above_its_ceiling(paper):
    for frame in paper.values():
        assert (frame["residual_low"] > 0).all()
        assert (frame["any_curve_residual_low"] > 0).all()  # and above whatever falling function of entropy
        assert (frame["excess"] > 0).all()
        assert frame["passes_ceiling_at"].notna().all()
    # the noise of the picture's 32B Clip-higher allows for its ceiling, by a hair
    assert paper["qwen2.5-7b"]["verdict"].tolist() == ["above ceiling"] * 3
    assert paper["qwen2.5-32b"].loc[["clip-cov", "kl-cov"], "verdict"].tolist() == ["above ceiling"] * 2
    assert paper["qwen2.5-32b"].loc["clip-higher", "verdict"] in ABOVE


def test_the_papers_baseline_of_7b_itself_ends_above_its_fitted_ceiling(paper):
    assert paper["qwen2.5-7b"]["baseline_excess"].iloc[0] > 0.01
    assert abs(paper["qwen2.5-32b"]["baseline_excess"].iloc[0]) < 0.005
