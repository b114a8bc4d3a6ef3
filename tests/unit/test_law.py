import logging
import math

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import noise, training

from entropy_mechanism.analysis.law import ENTROPY, LAW_COLUMNS, fit_law, fit_runs, law, least_squares
from entropy_mechanism.statistics import (
    autocorrelation,
    autoregressive_noise,
    effective_points,
    moving_block_indices,
    percentile_interval,
    persistence,
)

# (entropy in nats, accuracy in percent) read off Fig. 1 right of arXiv 2505.22617: Qwen2.5, math, GRPO
PUBLISHED_DOTS = {
    "7B": [
        *[(0.5455, 21.42), (0.5272, 24.98), (0.4284, 27.30), (0.3410, 31.92), (0.2690, 32.90)],
        *[(0.2211, 34.15), (0.1853, 34.73), (0.1598, 34.98), (0.1472, 35.66), (0.1356, 35.77)],
        *[(0.1266, 36.25), (0.1156, 35.79), (0.1034, 36.45), (0.0951, 35.93), (0.0883, 36.35)],
        *[(0.0812, 36.55), (0.0756, 36.51), (0.0691, 36.66), (0.0619, 37.05), (0.0576, 36.80)],
        *[(0.0527, 36.89), (0.0485, 37.47), (0.0443, 37.20), (0.0418, 36.97), (0.0387, 37.39)],
        *[(0.0370, 37.85), (0.0353, 37.40), (0.0344, 37.53), (0.0326, 37.97), (0.0316, 38.08)],
        *[(0.0306, 37.97), (0.0293, 37.99), (0.0282, 38.05), (0.0275, 38.24), (0.0260, 37.72)],
        *[(0.0251, 38.40), (0.0251, 37.95), (0.0241, 38.29), (0.0240, 37.99), (0.0232, 37.89)],
        *[(0.0231, 38.39), (0.0224, 37.88), (0.0222, 38.79), (0.0215, 37.78), (0.0211, 37.74)],
        *[(0.0205, 38.71), (0.0200, 39.04), (0.0198, 37.99), (0.0196, 38.84), (0.0190, 38.24)],
        (0.0187, 38.92),
    ],
    "32B": [
        *[(0.6147, 23.81), (0.5907, 26.80), (0.4644, 30.67), (0.3799, 34.79), (0.3097, 38.37)],
        *[(0.2620, 40.18), (0.2272, 40.92), (0.1893, 41.53), (0.1628, 41.59), (0.1420, 41.95)],
        *[(0.1253, 42.38), (0.1090, 42.78), (0.0947, 42.38), (0.0845, 42.92), (0.0747, 43.02)],
        *[(0.0669, 43.64), (0.0633, 42.88), (0.0582, 43.19), (0.0509, 43.27), (0.0480, 43.31)],
        *[(0.0427, 43.50), (0.0398, 44.04), (0.0361, 44.04), (0.0340, 43.36), (0.0320, 44.00)],
        *[(0.0308, 44.04), (0.0292, 43.86), (0.0268, 44.06), (0.0246, 44.29), (0.0237, 44.36)],
        *[(0.0223, 44.44), (0.0217, 44.25), (0.0201, 44.62), (0.0196, 44.56), (0.0189, 44.80)],
        *[(0.0181, 45.13), (0.0177, 44.71), (0.0174, 44.64), (0.0170, 44.80), (0.0168, 45.27)],
        *[(0.0163, 45.63), (0.0158, 44.62), (0.0152, 45.89), (0.0144, 46.27), (0.0138, 45.66)],
        *[(0.0135, 46.08), (0.0134, 45.90)],
    ],
}
# constants of the curves drawn in that figure
PUBLISHED_FITS = {"7B": (0.210, 0.596), "32B": (0.236, 0.690)}
ENTROPIES = np.array([0.55, 0.41, 0.30, 0.22, 0.15, 0.10, 0.07, 0.05])


def training_curve(points: int, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entropy falling exponentially from 0.55 to 0.02 nats, accuracy on a = 0.21, b = 0.596 plus noise."""
    entropy = 0.55 * np.exp(-np.linspace(0, 3.3, points))
    return entropy, 0.596 - 0.21 * np.exp(entropy) + errors


def curves_of(*runs: tuple[str, np.ndarray, np.ndarray]) -> pd.DataFrame:
    """The columns of curves.parquet that the fit reads; accuracy NaN where a step was not validated."""
    frames = []
    for name, entropy, accuracy in runs:
        frame = pd.DataFrame({"step": np.arange(len(entropy)), ENTROPY: entropy, "validation/accuracy": accuracy})
        frames.append(frame.assign(run=name, model="m", train_set="t", method="grpo", seed=3))
    return pd.concat(frames, ignore_index=True)


def test_noise_free_points_give_back_a_and_b_exactly():
    fit = fit_law(ENTROPIES, 0.596 - 0.21 * np.exp(ENTROPIES), seed=0)
    assert fit.a == pytest.approx(0.21, abs=1e-12)
    assert fit.b == pytest.approx(0.596, abs=1e-12)
    assert fit.ceiling == pytest.approx(0.386, abs=1e-12)
    assert fit.rmse == pytest.approx(0, abs=1e-12)
    assert fit.r2 == pytest.approx(1)
    assert (fit.a_low, fit.a_high) == pytest.approx((0.21, 0.21), abs=1e-9)
    assert (fit.points, fit.dropped, fit.reason) == (8, 0, None)


def test_law_at_zero_entropy_is_the_ceiling():
    assert law(0.0, a=0.2, b=0.6) == pytest.approx(0.4)
    assert law(np.array([math.log(2), math.log(3)]), a=0.2, b=0.6) == pytest.approx([0.2, 0.0])


def test_fit_is_the_least_squares_solution():
    accuracy = 0.5 - 0.1 * np.exp(ENTROPIES) + np.random.default_rng(1).normal(0, 0.01, ENTROPIES.size)
    fit = fit_law(ENTROPIES, accuracy, seed=0)
    design = np.column_stack([-np.exp(ENTROPIES), np.ones(ENTROPIES.size)])
    solution, squares, *_ = np.linalg.lstsq(design, accuracy)
    assert (fit.a, fit.b) == pytest.approx(tuple(solution))
    assert fit.ceiling == pytest.approx(solution[1] - solution[0])
    assert fit.rmse == pytest.approx(math.sqrt(squares[0] / ENTROPIES.size))
    assert fit.r2 == pytest.approx(1 - squares[0] / ((accuracy - accuracy.mean()) ** 2).sum())


def test_batched_least_squares_equals_single_fits():
    generator = np.random.default_rng(2)
    entropy, accuracy = generator.uniform(0, 1, (4, 5, 9)), generator.uniform(0, 1, (4, 5, 9))
    a, b = least_squares(entropy, accuracy)
    for i, j in np.ndindex(4, 5):
        slope, intercept = np.polyfit(np.exp(entropy[i, j]), accuracy[i, j], 1)
        assert (a[i, j], b[i, j]) == pytest.approx((-slope, intercept))


@pytest.mark.parametrize("size", ["7B", "32B"])
def test_published_dots_give_the_published_constants(size):
    entropy, percent = np.array(PUBLISHED_DOTS[size]).T
    fit = fit_law(entropy, percent / 100, seed=0)
    assert (fit.a, fit.b) == pytest.approx(PUBLISHED_FITS[size], abs=0.02)


@pytest.mark.parametrize(
    ("points", "rho", "least"), [(60, 0.0, 0.91), (60, 0.5, 0.90), (40, 0.8, 0.82), (20, 0.5, 0.86)]
)
def test_intervals_cover_the_truth_about_as_often_as_they_say(points, rho, least):
    random = np.random.default_rng(3)
    hits = np.zeros(3)
    for curve in range(300):
        entropy, accuracy = training(points, rho, random)
        fit = fit_law(entropy, accuracy, seed=curve, resamples=400)
        hits += [
            fit.a_low <= 0.21 <= fit.a_high,
            fit.b_low <= 0.596 <= fit.b_high,
            fit.ceiling_low <= 0.386 <= fit.ceiling_high,
        ]
    # nominal 0.95; the standard error of such a share over 300 curves is 0.013 to 0.02
    assert np.all((hits / 300 >= least) & (hits / 300 <= 0.99)), hits / 300


def test_autocorrelated_noise_widens_the_interval():
    widths = {0.0: [], 0.7: []}
    for rho, found in widths.items():
        random = np.random.default_rng(4)
        for curve in range(40):
            fit = fit_law(*training(60, rho, random), seed=curve, resamples=300)
            found.append((fit.ceiling_high - fit.ceiling_low) / fit.rmse)
    assert np.mean(widths[0.7]) > 1.6 * np.mean(widths[0.0])


def test_noise_is_drawn_with_the_persistence_and_spread_of_the_residuals():
    series = noise(4000, 0.6, 0.02, np.random.default_rng(5))
    draws = autoregressive_noise(series, 50, np.random.default_rng(6), fitted=1)
    assert draws.shape == (50, 4000)
    assert draws.std() == pytest.approx(series.std(), rel=0.03)
    assert np.mean([autocorrelation(row) for row in draws]) == pytest.approx(0.6, abs=0.03)
    assert draws[:, 0].std() == pytest.approx(series.std(), rel=0.3)  # stationary from the first point on
    assert not autoregressive_noise(np.zeros(10), 3, np.random.default_rng(7)).any()
    assert not autoregressive_noise(np.empty(0), 3, np.random.default_rng(7)).size


def test_persistence_is_freed_of_its_bias_in_short_series():
    random = np.random.default_rng(8)
    raw = [autocorrelation(noise(30, 0.5, 1.0, random)) for _ in range(400)]
    assert np.mean(raw) < 0.45
    found = np.mean([persistence(30, value) for value in raw])
    assert 0.48 <= found <= 0.57  # rather too persistent than too little
    assert persistence(30, -0.4) == persistence(30, math.nan) == persistence(4, 0.9) == 0
    assert persistence(10, 0.9) == 0.95


def test_effective_points_are_those_that_fix_the_mean_as_well():
    # the variance of the mean of AR(1) noise is sigma^2 / n (1 + rho) / (1 - rho) for long series
    random = np.random.default_rng(9)
    means = [noise(400, 0.5, 1.0, random).mean() for _ in range(300)]
    assert effective_points(400, 0.5) == pytest.approx(1 / np.var(means), rel=0.25)
    assert effective_points(50, math.nan) == 50


def test_same_seed_same_interval_and_other_seed_another():
    entropy, accuracy = training_curve(30, np.random.default_rng(5).normal(0, 0.01, 30))
    assert fit_law(entropy, accuracy, seed=1) == fit_law(entropy, accuracy, seed=1)
    assert fit_law(entropy, accuracy, seed=1).a_low != fit_law(entropy, accuracy, seed=2).a_low


def test_values_that_are_not_finite_are_dropped_and_counted():
    accuracy = 0.596 - 0.21 * np.exp(ENTROPIES)
    entropy = np.append(ENTROPIES, [np.nan, 0.3, np.inf])
    fit = fit_law(entropy, np.append(accuracy, [0.9, np.nan, 0.9]), seed=0)
    assert (fit.points, fit.dropped) == (8, 3)
    assert fit.a == pytest.approx(0.21)


@pytest.mark.parametrize(
    ("entropy", "accuracy", "reason"),
    [
        ([0.5, 0.2], [0.1, 0.2], "2 points"),
        ([0.5, 0.2, np.nan], [0.1, 0.2, 0.3], "2 points"),
        ([], [], "0 points"),
        ([0.3, 0.3, 0.3, 0.3], [0.1, 0.2, 0.1, 0.2], "constant at 0.3"),
        ([0.3, 0.3 + 1e-13, 0.3, 0.3 - 1e-13], [0.1, 0.2, 0.1, 0.2], "constant at 0.3"),
    ],
)
def test_impossible_fits_are_nan_with_a_reason(entropy, accuracy, reason):
    fit = fit_law(np.array(entropy), np.array(accuracy), seed=0)
    assert reason in fit.reason
    assert all(math.isnan(value) for value in (fit.a, fit.b, fit.ceiling, fit.a_low, fit.rmse, fit.r2))


def test_constant_accuracy_is_a_flat_law_without_r2():
    # the mean of seven times 0.1 is not 0.1 in floating point
    fit = fit_law(ENTROPIES[:7], np.full(7, 0.1), seed=0)
    assert (fit.a, fit.b, fit.ceiling) == pytest.approx((0, 0.1, 0.1), abs=1e-12)
    assert math.isnan(fit.r2)


def test_arrays_of_different_length_are_refused():
    with pytest.raises(ValueError, match="equally long"):
        fit_law(np.ones(3), np.ones(4), seed=0)


def test_blocks_are_consecutive_and_reach_every_point_without_wrapping():
    rows = moving_block_indices(10, 300, np.random.default_rng(6), block_length=3)
    assert rows.shape == (300, 10)
    assert set(np.unique(rows)) == set(range(10))
    for start in (0, 3, 6):
        assert np.all(np.diff(rows[:, start : start + 3], axis=1) == 1)
    with pytest.raises(ValueError, match="block_length is 11"):
        moving_block_indices(10, 1, np.random.default_rng(0), block_length=11)


def test_percentile_interval_leaves_out_nan():
    values = np.append(np.arange(1001.0), np.nan)
    assert percentile_interval(values, 0.95) == pytest.approx((25, 975))
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()


def test_runs_are_fitted_apart_on_validated_steps_in_order_of_step():
    entropy, accuracy = training_curve(40, np.random.default_rng(7).normal(0, 0.005, 40))
    accuracy[20] += 0.1
    sparse = np.where(np.arange(40) % 4 == 0, accuracy, np.nan)
    one, other = ("one", entropy, sparse), ("other", entropy, 0.3 - 0.05 * np.exp(entropy))
    frame = fit_runs(curves_of(one, other).sample(frac=1, random_state=0), seed=0)
    assert list(frame.columns) == LAW_COLUMNS
    rows = frame.set_index("run")
    slope, intercept = np.polyfit(np.exp(entropy[::4]), accuracy[::4], 1)
    assert tuple(rows.loc["one", ["a", "b"]]) == pytest.approx((-slope, intercept))
    assert tuple(rows.loc["other", ["a", "b"]]) == pytest.approx((0.05, 0.3))
    assert list(rows.loc["one", ["points", "model", "train_set", "method", "seed"]]) == [
        10,
        "m",
        "t",
        "grpo",
        3,
    ]
    expected = (entropy[0], entropy[36], accuracy[0], accuracy[36], accuracy[::4].max())
    measured = ["entropy_first", "entropy_last", "accuracy_first", "accuracy_last", "accuracy_max"]
    assert tuple(rows.loc["one", measured]) == pytest.approx(expected)
    assert rows.loc["one", "a_low"] < rows.loc["one", "a"] < rows.loc["one", "a_high"]


def test_interval_of_a_run_does_not_depend_on_the_other_runs():
    entropy, accuracy = training_curve(20, np.random.default_rng(8).normal(0, 0.01, 20))
    one, other = ("one", entropy, accuracy), ("other", entropy, accuracy)
    both = fit_runs(curves_of(other, one), seed=0).set_index("run")
    alone = fit_runs(curves_of(one), seed=0).set_index("run")
    pd.testing.assert_series_equal(both.loc["one"], alone.loc["one"])
    assert both.loc["one", "a_low"] != both.loc["other", "a_low"]
    other_seed = fit_runs(curves_of(one), seed=1).set_index("run")
    assert other_seed.loc["one", "a_low"] != alone.loc["one", "a_low"]


def test_unfittable_run_keeps_its_row_and_missing_entropy_is_reported(caplog):
    entropy = np.array([0.5, np.nan, 0.2, 0.1])
    with caplog.at_level(logging.WARNING):
        frame = fit_runs(curves_of(("short", entropy, np.array([0.1, 0.2, np.nan, 0.3]))), seed=0)
    assert frame.loc[0, "points"] == 2
    assert frame.loc[0, ["a", "b", "ceiling", "a_low", "rmse"]].isna().all()
    assert frame.loc[0, "accuracy_max"] == 0.3
    assert "1 validated steps without entropy/sequence_mean/after_filter" in caplog.text
    assert "law not fitted: 2 points" in caplog.text


def test_missing_columns_and_repeated_steps_are_refused():
    curves = curves_of(("one", ENTROPIES, ENTROPIES))
    with pytest.raises(ValueError, match="missing entropy/token_mean"):
        fit_runs(curves, seed=0, entropy_column="entropy/token_mean")
    with pytest.raises(ValueError, match="'one' has step 0 twice"):
        fit_runs(pd.concat([curves, curves.iloc[:1]]), seed=0)


def test_no_runs_give_an_empty_frame():
    frame = fit_runs(curves_of(("one", ENTROPIES, ENTROPIES)).iloc[:0], seed=0)
    assert frame.empty
    assert list(frame.columns) == LAW_COLUMNS
