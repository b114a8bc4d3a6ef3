import numpy as np
import pandas as pd
import pytest

from entropy_mechanism.analysis.columns import ENTROPY_BEFORE_FILTER as ENTROPY
from entropy_mechanism.analysis.dynamics import COVARIANCE, DYNAMICS_COLUMNS, dynamics
from entropy_mechanism.analysis.entropy_change import ENTROPY_CHANGE_COLUMNS, entropy_change


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


def test_even_windows_missing_columns_and_repeated_steps_are_refused():
    curves = curves_of([0.9, 0.8], [0.1, 0.2])
    with pytest.raises(ValueError, match="window is 4"):
        dynamics(curves, window=4)
    with pytest.raises(ValueError, match="missing covariance/response"):
        dynamics(curves.drop(columns=COVARIANCE))
    with pytest.raises(ValueError, match="step 0 twice"):
        dynamics(pd.concat([curves, curves.iloc[:1]]))


def test_no_runs_give_an_empty_frame():
    frame = dynamics(curves_of([0.9, 0.8], [0.1, 0.2]).iloc[:0])
    assert list(frame.columns) == DYNAMICS_COLUMNS


def test_a_measured_entropy_change_is_split_into_same_prefixes_and_other_ones():
    curves = curves_of([0.9, 0.7, 0.6, 0.65], [0.2, 0.1, -0.05, 0.0], train_set="t", updates_per_rollout=8)
    measured = {
        "entropy_change/same_prefix": [-0.15, np.nan, 0.1, np.nan],
        "entropy_change/predicted": [-0.14, np.nan, 0.2, np.nan],
        "entropy_change/logit_advantage": [0.3, np.nan, np.nan, np.nan],
        "entropy_change/logit_weighted_advantage": [0.1, np.nan, 0.2, np.nan],
    }
    frame = entropy_change(curves.assign(**measured).iloc[::-1])
    assert list(frame) == ENTROPY_CHANGE_COLUMNS
    assert frame[["step", "gradient_steps"]].to_numpy().tolist() == [[0, 0], [2, 16]]
    assert frame["measured"].tolist() == pytest.approx([-0.2, 0.05])
    assert frame["same_prefix"].tolist() == [-0.15, 0.1]
    assert frame["state_distribution"].tolist() == pytest.approx([-0.05, -0.05])
    assert frame["predicted"].tolist() == [-0.14, 0.2]
    assert frame["logit_weighted_advantage"].tolist() == [0.1, 0.2]
    assert frame["logit_advantage"].isna().tolist() == [False, True]


def test_a_step_whose_successor_was_not_logged_has_no_measured_change():
    curves = curves_of([0.9, 0.7, 0.6], [0.2, 0.1, 0.1], train_set="t", updates_per_rollout=8)
    curves = curves.assign(**{"entropy_change/same_prefix": -0.1, "entropy_change/predicted": -0.1})
    frame = entropy_change(curves.drop(index=1))
    assert frame["measured"].isna().tolist() == [True, True]
    assert frame["state_distribution"].isna().tolist() == [True, True]
    assert frame["same_prefix"].tolist() == [-0.1, -0.1]


def test_runs_that_measure_no_entropy_change_give_an_empty_frame_of_the_same_types():
    curves = curves_of([0.9, 0.7], [0.2, 0.1], train_set="t", updates_per_rollout=8)
    columns = ("entropy_change/same_prefix", "entropy_change/predicted")
    some = entropy_change(curves.assign(**dict.fromkeys(columns, 0.1)))
    for none in (curves, curves.assign(**dict.fromkeys(columns))):
        frame = entropy_change(none)
        assert len(frame) == 0
        assert frame.dtypes.to_dict() == some.dtypes.to_dict()
