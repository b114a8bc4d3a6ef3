import numpy as np
import pandas as pd
import pytest
from scipy import stats

from entropy_mechanism.analysis.dynamics import (
    COVARIANCE,
    DYNAMICS_COLUMNS,
    ENTROPY,
    SUMMARY_COLUMNS,
    dynamics,
    summarise_dynamics,
)


def curves_of(entropy, covariance, run="r", **columns) -> pd.DataFrame:
    steps = np.arange(len(entropy))
    frame = pd.DataFrame({"step": steps, "gradient_steps": 8 * steps, ENTROPY: entropy, COVARIANCE: covariance})
    return frame.assign(run=run, model="m", method="grpo", seed=1, **columns)


def series_of(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    return frame[frame["series"] == name].set_index("step")


def test_minus_entropy_difference_is_what_the_step_loses():
    frame = dynamics(curves_of([0.9, 0.7, 0.6, 0.65], [0.2, 0.1, -0.05, 0.0]), window=1)
    assert list(frame.columns) == DYNAMICS_COLUMNS
    loss = series_of(frame, "minus_entropy_difference")
    assert loss["value"].to_dict() == pytest.approx({0: 0.2, 1: 0.1, 2: -0.05})
    assert loss["gradient_steps"].to_dict() == {0: 0, 1: 8, 2: 16}
    assert series_of(frame, "covariance")["value"].to_dict() == {0: 0.2, 1: 0.1, 2: -0.05, 3: 0.0}


def test_entropy_column_is_a_choice():
    curves = curves_of([0.9, 0.7], [0.2, 0.1]).assign(other=[0.5, 0.2])
    loss = series_of(dynamics(curves, window=1, entropy_column="other"), "minus_entropy_difference")
    assert loss["value"].tolist() == pytest.approx([0.3])


def test_smoothing_is_the_centred_moving_mean_with_its_spread():
    values = np.random.default_rng(0).normal(0.01, 0.005, 20)
    smooth = series_of(dynamics(curves_of(np.linspace(1, 0, 20), values), window=5), "covariance")
    for step in range(20):
        around = values[max(0, step - 2) : step + 3]
        expected = (around.mean(), around.mean() - around.std(), around.mean() + around.std())
        assert tuple(smooth.loc[step, ["smooth", "low", "high"]]) == pytest.approx(expected)


def test_a_step_that_was_not_logged_breaks_the_difference_but_not_the_clock():
    curves = curves_of([0.9, 0.8, 0.6, 0.5, 0.4], [1.0, 2.0, 3.0, 4.0, 5.0]).drop(index=2)
    frame = dynamics(curves, window=3)
    assert list(series_of(frame, "minus_entropy_difference").index) == [0, 3]
    covariance = series_of(frame, "covariance")
    assert list(covariance.index) == [0, 1, 3, 4]
    assert covariance["smooth"].to_dict() == pytest.approx({0: 1.5, 1: 1.5, 3: 4.5, 4: 4.5})
    assert frame["seed"].dtype.kind == "i"
    assert frame["gradient_steps"].dtype.kind == "i"


def test_each_difficulty_has_its_series_on_the_steps_where_it_occurs():
    groups = {
        "covariance/response_accuracy_0.875": [0.3, np.nan, 0.5],
        "covariance/response_accuracy_1/8": [np.nan, 0.1, 0.2],
    }
    curves = curves_of([0.9, 0.8, 0.7], [0.2, 0.2, 0.2], **groups)
    frame = dynamics(curves, window=3)
    easy = series_of(frame, "group_accuracy=0.875")
    assert easy["value"].to_dict() == {0: 0.3, 2: 0.5}
    assert easy["smooth"].to_dict() == pytest.approx({0: 0.3, 2: 0.5})
    assert series_of(frame, "group_accuracy=0.125")["value"].to_dict() == {1: 0.1, 2: 0.2}
    with pytest.raises(ValueError, match="response_accuracy_easy"):
        dynamics(curves.assign(**{"covariance/response_accuracy_easy": 0.1}))


def test_recorded_steps_take_their_covariances_from_the_records():
    easy = "covariance/response_accuracy_0.875"
    curves = curves_of([0.9, 0.8, 0.7], [0.2, 0.3, 0.4], **{easy: [0.5, np.nan, 0.7]})
    hard = "covariance/response_accuracy_0.125"
    recorded = pd.DataFrame({"run": ["r", "r", "other"], "step": [0, 1, 2], COVARIANCE: [2.0, 3.0, 4.0]})
    recorded = recorded.assign(**{hard: [np.nan, 0.1, 0.2], easy: [5.0, 6.0, 7.0]})
    frame = dynamics(curves, window=1, recorded=recorded)
    found = series_of(frame, "covariance")
    assert found["value"].to_dict() == found["smooth"].to_dict() == {0: 2.0, 1: 3.0, 2: 0.4}
    assert found["source"].to_dict() == {0: "records", 1: "records", 2: "logged"}
    assert series_of(frame, "group_accuracy=0.875")["value"].to_dict() == {0: 5.0, 1: 6.0, 2: 0.7}
    assert series_of(frame, "group_accuracy=0.125")["value"].to_dict() == {1: 0.1}
    loss = series_of(frame, "minus_entropy_difference")
    assert set(loss["source"]) == {"logged"}
    without = dynamics(curves, window=1, recorded=recorded.iloc[:0])
    pd.testing.assert_frame_equal(without, dynamics(curves, window=1))
    assert set(without["source"]) == {"logged"}


def test_runs_do_not_leak_into_each_other():
    one = curves_of([0.9, 0.5], [0.1, 0.2], run="one")
    other = curves_of([0.4, 0.3], [0.3, 0.4], run="other")
    frame = dynamics(pd.concat([one, other]).iloc[::-1], window=3)
    losses = frame[frame["series"] == "minus_entropy_difference"].set_index("run")["value"]
    assert losses.to_dict() == pytest.approx({"one": 0.4, "other": 0.1})
    covariance = frame[(frame["series"] == "covariance") & (frame["run"] == "one")]
    assert covariance["smooth"].tolist() == pytest.approx([0.15, 0.15])


def test_proportional_loss_gives_its_factor_and_perfect_correlations():
    covariance = np.random.default_rng(1).uniform(-0.005, 0.02, 30)
    entropy = 1 - np.concatenate([[0], np.cumsum(0.4 * covariance[:-1])])
    row = summarise_dynamics(dynamics(curves_of(entropy, covariance))).iloc[0]
    assert row["steps"] == 29
    assert row["slope_through_origin"] == pytest.approx(0.4)
    assert (row["pearson"], row["spearman"]) == pytest.approx((1, 1))
    assert row["positive_share"] == pytest.approx((covariance[:-1] > 0).mean())


def test_summary_agrees_with_scipy_on_raw_values():
    generator = np.random.default_rng(2)
    covariance = generator.normal(0.01, 0.01, 50)
    entropy = 1 - np.cumsum(0.5 * covariance + generator.normal(0, 0.005, 50))
    summary = summarise_dynamics(dynamics(curves_of(entropy, covariance), window=11))
    row, loss = summary.iloc[0], entropy[:-1] - entropy[1:]
    assert list(summary.columns) == SUMMARY_COLUMNS
    assert row["positive_share"] == sum(value > 0 for value in covariance[:-1]) / 49
    assert row["pearson"] == pytest.approx(stats.pearsonr(covariance[:-1], loss).statistic)
    assert row["spearman"] == pytest.approx(stats.spearmanr(covariance[:-1], loss).statistic)
    slope = np.linalg.lstsq(covariance[:-1, None], loss)[0][0]
    assert row["slope_through_origin"] == pytest.approx(slope)


def test_undefined_summaries_are_nan():
    constant = summarise_dynamics(dynamics(curves_of([0.9, 0.8, 0.6, 0.5], [0.1] * 4))).iloc[0]
    assert np.isnan(constant["pearson"])
    assert np.isnan(constant["spearman"])
    assert constant["slope_through_origin"] == pytest.approx(0.4 / 3 / 0.1)
    alone = summarise_dynamics(dynamics(curves_of([0.9], [0.1]))).iloc[0]
    assert alone["steps"] == 0
    assert alone[["positive_share", "pearson", "slope_through_origin"]].isna().all()


def test_even_windows_missing_columns_and_repeated_steps_are_refused():
    curves = curves_of([0.9, 0.8], [0.1, 0.2])
    with pytest.raises(ValueError, match="window is 4"):
        dynamics(curves, window=4)
    with pytest.raises(ValueError, match="missing covariance/response"):
        dynamics(curves.drop(columns=COVARIANCE))
    with pytest.raises(ValueError, match="step 0 twice"):
        dynamics(pd.concat([curves, curves.iloc[:1]]))


def test_no_runs_give_empty_frames():
    frame = dynamics(curves_of([0.9, 0.8], [0.1, 0.2]).iloc[:0])
    assert list(frame.columns) == DYNAMICS_COLUMNS
    assert list(summarise_dynamics(frame).columns) == SUMMARY_COLUMNS
