import logging

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import training

from entropy_mechanism.analysis.forecasting import (
    FORECAST_COLUMNS,
    FORECAST_POINT_COLUMNS,
    PREDICTORS,
    forecast_runs,
)
from entropy_mechanism.analysis.law import ENTROPY


def curves_of(steps, entropy, accuracy, run="r") -> pd.DataFrame:
    frame = pd.DataFrame({"step": steps, ENTROPY: entropy, "validation/accuracy": accuracy})
    return frame.assign(run=run, model="m", train_set="t", method="grpo", seed=1)


def falling_entropy(points: int) -> np.ndarray:
    return 0.5 * np.exp(-np.linspace(0, 3, points))


def test_on_the_exact_law_the_early_part_predicts_the_rest_without_error():
    steps, entropy = np.arange(0, 241, 4), falling_entropy(61)
    forecasts, points = forecast_runs(curves_of(steps, entropy, 0.6 - 0.2 * np.exp(entropy)))
    row = forecasts.iloc[0]
    assert list(forecasts.columns) == FORECAST_COLUMNS
    assert list(points.columns) == FORECAST_POINT_COLUMNS
    assert (row["a"], row["b"]) == pytest.approx((0.2, 0.6))
    assert (row["rmse"], row["final_error"]) == pytest.approx((0, 0), abs=1e-12)
    # steps 0, 4 ... 36 lie within 0.15 of 240
    assert (row["points_fitted"], row["points_predicted"]) == (10, 51)
    assert list(points.loc[points["fitted"], "step"]) == list(range(0, 37, 4))


def test_errors_are_over_the_predicted_points_only():
    entropy = falling_entropy(20)
    accuracy = 0.6 - 0.2 * np.exp(entropy)
    accuracy[5:] += np.linspace(0.01, 0.08, 15)
    forecasts, points = forecast_runs(curves_of(np.arange(20), entropy, accuracy), fractions=(4 / 19,))
    row = forecasts.iloc[0]
    assert row["points_fitted"] == 5
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean(np.linspace(0.01, 0.08, 15) ** 2)))
    assert row["final_error"] == pytest.approx(0.08)
    assert points["predicted"].to_numpy() == pytest.approx(0.6 - 0.2 * np.exp(entropy))
    assert points["accuracy"].to_numpy() == pytest.approx(accuracy)


def test_what_happens_after_the_window_does_not_change_the_fit():
    entropy = falling_entropy(40)
    accuracy = 0.5 - 0.1 * np.exp(entropy) + np.random.default_rng(0).normal(0, 0.01, 40)
    changed = np.where(np.arange(40) < 10, accuracy, 0.9)
    first, _ = forecast_runs(curves_of(np.arange(40), entropy, accuracy), fractions=(0.2,))
    second, _ = forecast_runs(curves_of(np.arange(40), entropy, changed), fractions=(0.2,))
    slope, intercept = np.polyfit(np.exp(entropy[:8]), accuracy[:8], 1)
    assert tuple(first.loc[0, ["a", "b"]]) == pytest.approx((-slope, intercept))
    assert tuple(first.loc[0, ["a", "b"]]) == tuple(second.loc[0, ["a", "b"]])
    assert first.loc[0, "rmse"] < second.loc[0, "rmse"]


def test_the_window_is_a_share_of_steps_not_of_points():
    # dense validation early: half of the points lie in the first tenth of training
    steps = np.array([0, 1, 2, 3, 4, 5, 6, 7, 40, 60, 80, 90, 95, 96, 98, 100])
    forecasts, _ = forecast_runs(curves_of(steps, falling_entropy(16), np.linspace(0.2, 0.4, 16)), (0.1,))
    assert forecasts.loc[0, "points_fitted"] == 8


def test_the_window_holds_three_points_at_least_and_says_so(caplog):
    entropy = falling_entropy(6)
    curves = curves_of(np.arange(6), entropy, 0.6 - 0.2 * np.exp(entropy))
    with caplog.at_level(logging.WARNING):
        forecasts, points = forecast_runs(curves, fractions=(0.15,))
    assert forecasts.loc[0, "points_fitted"] == 3
    assert forecasts.loc[0, "fraction"] == 0.15
    assert list(points["fitted"]) == [True] * 3 + [False] * 3
    assert "1 points in the first 0.15 of training; the first 3 are fitted" in caplog.text


def test_three_points_leave_nothing_to_predict_and_two_nothing_to_fit():
    entropy = falling_entropy(3)
    forecasts, _ = forecast_runs(curves_of(np.arange(3), entropy, 0.6 - 0.2 * np.exp(entropy)))
    assert forecasts.loc[0, "a"] == pytest.approx(0.2)
    assert forecasts.loc[0, "points_predicted"] == 0
    assert forecasts.loc[0, ["rmse", "final_error"]].isna().all()
    forecasts, points = forecast_runs(curves_of(np.arange(2), entropy[:2], np.array([0.1, 0.2])))
    assert forecasts.loc[0, ["a", "b", "rmse", "final_error"]].isna().all()
    assert points["predicted"].isna().all()


def test_constant_entropy_in_the_window_gives_no_forecast():
    entropy = np.append(np.full(4, 0.4), falling_entropy(16))
    forecasts, points = forecast_runs(curves_of(np.arange(20), entropy, np.linspace(0.2, 0.4, 20)), (0.15,))
    assert forecasts.loc[0, ["a", "b", "rmse", "final_error"]].isna().all()
    assert points["predicted"].isna().all()


def test_each_run_and_fraction_has_its_rows():
    entropy = falling_entropy(20)
    one = curves_of(np.arange(20), entropy, 0.6 - 0.2 * np.exp(entropy), run="one")
    other = curves_of(np.arange(20), entropy, 0.3 - 0.1 * np.exp(entropy), run="other")
    forecasts, points = forecast_runs(pd.concat([one, other]).sample(frac=1, random_state=1), (0.2, 0.5))
    law = forecasts[(forecasts["predictor"] == "exponential") & (forecasts["direction"] == "forward")]
    coefficients = law.set_index(["run", "fraction"])["a"].to_dict()
    expected = {("one", 0.2): 0.2, ("one", 0.5): 0.2, ("other", 0.2): 0.1, ("other", 0.5): 0.1}
    assert coefficients == pytest.approx(expected)
    assert points.groupby(["run", "fraction"]).size().tolist() == [20] * 4
    for _, part in points.groupby(["run", "fraction"]):
        assert part["step"].is_monotonic_increasing


def test_impossible_fractions_are_refused():
    with pytest.raises(ValueError, match=r"fraction is 1\.5"):
        forecast_runs(curves_of(np.arange(5), falling_entropy(5), np.ones(5)), fractions=(1.5,))


def test_no_runs_give_empty_frames():
    curves = curves_of(np.arange(5), falling_entropy(5), np.ones(5)).iloc[:0]
    for frame, columns in zip(forecast_runs(curves), (FORECAST_COLUMNS, FORECAST_POINT_COLUMNS), strict=True):
        assert frame.empty
        assert list(frame.columns) == columns


def of(forecasts, predictor, direction="forward"):
    return forecasts[(forecasts["predictor"] == predictor) & (forecasts["direction"] == direction)].iloc[0]


@pytest.mark.parametrize("direction", ["forward", "reversed"])
@pytest.mark.parametrize(
    ("predictor", "curve"),
    [
        ("exponential", lambda steps, entropy: 0.6 - 0.2 * np.exp(entropy)),
        ("linear", lambda steps, entropy: 0.5 - 0.3 * entropy),
        ("log-entropy", lambda steps, entropy: 0.2 - 0.05 * np.log(entropy)),
        ("log-steps", lambda steps, entropy: 0.1 + 0.06 * np.log(1 + steps)),
    ],
)
def test_every_predictor_is_exact_on_its_own_curve_and_on_no_other(predictor, curve, direction):
    steps, entropy = np.arange(0, 161, 4), falling_entropy(41)
    forecasts, _ = forecast_runs(curves_of(steps, entropy, curve(steps, entropy)), (0.25,))
    assert of(forecasts, predictor, direction)["rmse"] < 1e-9
    for other in set(PREDICTORS) - {predictor}:
        assert of(forecasts, other, direction)["rmse"] > 1e-3


def test_the_last_value_is_the_one_next_to_what_is_predicted():
    steps, entropy = np.arange(20), falling_entropy(20)
    accuracy = np.linspace(0.1, 0.29, 20)
    forecasts, _ = forecast_runs(curves_of(steps, entropy, accuracy), (4 / 19,))
    forward, reverse = of(forecasts, "last-value"), of(forecasts, "last-value", "reversed")
    assert forward["b"] == pytest.approx(accuracy[4])
    assert forward["rmse"] == pytest.approx(np.sqrt(((accuracy[5:] - accuracy[4]) ** 2).mean()))
    assert forward["final_error"] == pytest.approx(accuracy[19] - accuracy[4])
    assert reverse["b"] == pytest.approx(accuracy[15])
    assert reverse["final_error"] == pytest.approx(accuracy[15] - accuracy[0])  # farthest from the window
    assert (reverse["points_fitted"], reverse["points_predicted"]) == (5, 15)


def test_with_noise_the_law_forecasts_its_own_runs_best_and_a_late_part_tells_little_of_the_early():
    random = np.random.default_rng(1)
    errors = {}
    for _ in range(40):
        curves = curves_of(4 * np.arange(60), *training(60, 0.3, random, spread=0.004))
        forecasts, _ = forecast_runs(curves, (0.25,))
        for row in forecasts.itertuples():
            errors.setdefault((row.predictor, row.direction), []).append(row.rmse)
    medians = {key: np.median(values) for key, values in errors.items()}
    forward = {predictor: medians[predictor, "forward"] for predictor in PREDICTORS}
    assert min(forward, key=forward.get) == "exponential"
    assert forward["exponential"] < 0.006  # little more than the noise, 0.004
    assert medians["exponential", "reversed"] > 3 * forward["exponential"]


def test_an_entropy_of_zero_leaves_only_its_logarithm_without_a_forecast():
    entropy = np.append(0.0, falling_entropy(19))
    forecasts, _ = forecast_runs(curves_of(np.arange(20), entropy, 0.6 - 0.2 * np.exp(entropy)), (0.3,))
    assert np.isnan(of(forecasts, "log-entropy")["rmse"])
    assert of(forecasts, "exponential")["rmse"] < 1e-9
