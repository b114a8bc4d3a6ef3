"""Shares, correlations, slopes and their intervals, on series whose truth is known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.signal import lfilter
from test_dynamics import curves_of

from entropy_mechanism.analysis.dynamics import DYNAMICS_COLUMNS, LEVELS, dynamics
from entropy_mechanism.analysis.dynamics_summary import (
    SUMMARY_COLUMNS,
    Bootstrap,
    pearson,
    share_interval,
    slope_through_origin,
    summarise_dynamics,
)
from entropy_mechanism.analysis.entropy_change import ENTROPY_CHANGE_COLUMNS


def red_noise(generator, rho, *shape):
    """AR(1) series of unit variance along the last axis."""
    innovations = generator.normal(size=(*shape[:-1], shape[-1] + 50)) * math.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], innovations, axis=-1)[..., 50:]


def summary_of(covariance, loss, **frames):
    entropy = 5 - np.concatenate([[0], np.cumsum(loss)])
    series = dynamics(curves_of(entropy, [*covariance, np.nan]))
    return summarise_dynamics(series, resamples=200, **frames).iloc[0]


def test_proportional_loss_gives_its_factor_and_perfect_correlations():
    covariance = np.random.default_rng(1).uniform(-0.005, 0.02, 29)
    row = summary_of(covariance, 0.4 * covariance)
    assert row["steps"] == 29
    for name in ("slope_through_origin", "slope_through_origin_low", "slope_through_origin_high"):
        assert row[name] == pytest.approx(0.4)
    for name in ("pearson", "spearman", "pearson_low", "spearman_high"):
        assert row[name] == pytest.approx(1)
    assert row["positive_share"] == pytest.approx((covariance > 0).mean())
    assert (row["lag"], row["lag_pearson"]) == (0, pytest.approx(1))


def test_summary_agrees_with_scipy_on_raw_values():
    generator = np.random.default_rng(2)
    covariance = generator.normal(0.01, 0.01, 49)
    loss = 0.5 * covariance + generator.normal(0, 0.005, 49)
    row = summary_of(covariance, loss)
    assert row["positive_share"] == sum(value > 0 for value in covariance) / 49
    assert row["pearson"] == pytest.approx(stats.pearsonr(covariance, loss).statistic)
    assert row["spearman"] == pytest.approx(stats.spearmanr(covariance, loss).statistic)
    assert row["slope_through_origin"] == pytest.approx(np.linalg.lstsq(covariance[:, None], loss)[0][0])


@pytest.mark.parametrize("lag", [-4, 0, 3])
def test_the_lag_is_that_by_which_the_loss_trails_the_covariance(lag):
    driver = np.random.default_rng(3).normal(size=120)
    covariance, loss = driver[10:110], driver[10 - lag : 110 - lag]
    row = summary_of(covariance, loss)
    assert row["lag"] == lag
    assert row["lag_pearson"] == pytest.approx(1)


def test_undefined_summaries_are_nan():
    constant = summary_of([0.1] * 3, [0.1, 0.2, 0.1])
    assert constant[["pearson", "spearman", "pearson_low", "lag"]].isna().all()
    assert constant["slope_through_origin"] == pytest.approx(0.4 / 3 / 0.1)
    alone = summarise_dynamics(dynamics(curves_of([0.9], [0.1]))).iloc[0]
    assert alone["steps"] == alone["levels"] == alone["changes"] == 0
    assert alone[["positive_share", "positive_share_low", "pearson", "slope_through_origin"]].isna().all()
    frames = {"levels": pd.DataFrame(columns=["run", "step", *LEVELS], dtype=float)}
    frames |= {"changes": pd.DataFrame(columns=ENTROPY_CHANGE_COLUMNS, dtype=float)}
    none = summary_of([0.1, 0.2, 0.3], [0.1, 0.2, 0.1], **frames)
    assert none["levels"] == none["changes"] == 0
    assert (
        none[["token_action", "token_positive_share", "same_prefix_slope", "mean_measured", "measured_r2"]]
        .isna()
        .all()
    )


def test_no_runs_give_an_empty_frame():
    frame = summarise_dynamics(pd.DataFrame(columns=DYNAMICS_COLUMNS))
    assert list(frame) == SUMMARY_COLUMNS
    assert len(frame) == 0


def test_an_interval_does_not_depend_on_the_other_runs():
    generator = np.random.default_rng(5)
    one, other = (
        dynamics(curves_of(np.cumsum(generator.normal(size=40)), generator.normal(size=40), run=name))
        for name in ("one", "other")
    )
    alone = summarise_dynamics(one, resamples=100)
    both = summarise_dynamics(pd.concat([other, one]), resamples=100)
    pd.testing.assert_series_equal(alone.iloc[0], both.iloc[1], check_names=False)


def levels_of(generator, steps):
    token = generator.normal(size=steps)
    frame = pd.DataFrame({"run": "r", "step": np.arange(steps), "token": token})
    return frame.assign(sequence=0.5 * token + generator.normal(size=steps), action=-token)


def test_levels_correlate_with_each_other_and_with_the_loss():
    generator = np.random.default_rng(6)
    levels = levels_of(generator, 60)
    loss = levels["sequence"].to_numpy() + generator.normal(size=60)
    kept = levels[levels["step"] % 2 == 0]  # every other step keeps records
    row = summary_of(generator.normal(size=60), loss, levels=kept)
    assert row["levels"] == 30
    assert row["token_action"] == pytest.approx(-1)
    assert row["token_sequence"] == pytest.approx(np.corrcoef(kept["token"], kept["sequence"])[0, 1])
    assert row["sequence_action"] == pytest.approx(-row["token_sequence"])
    assert row["sequence_pearson"] == pytest.approx(np.corrcoef(kept["sequence"], loss[::2])[0, 1])
    assert row["token_positive_share"] == (kept["token"] > 0).mean() == 1 - row["action_positive_share"]


def changes_of(predicted, same_prefix, measured):
    frame = pd.DataFrame({"predicted": predicted, "same_prefix": same_prefix, "measured": measured})
    frame = frame.assign(run="r", step=np.arange(len(frame)), state_distribution=frame["measured"] - same_prefix)
    return frame.assign(logit_advantage=0.3, logit_weighted_advantage=[*[0.1] * (len(frame) - 1), np.nan])


def test_entropy_changes_are_regressed_on_their_prediction_and_split():
    generator = np.random.default_rng(7)
    predicted = generator.normal(-0.01, 0.01, 50)
    same_prefix = 0.9 * predicted + generator.normal(0, 1e-3, 50)
    measured = same_prefix + 0.002 + generator.normal(0, 0.02, 50)
    measured[-1] = np.nan
    row = summary_of(predicted, predicted, changes=changes_of(predicted, same_prefix, measured))
    assert row["changes"] == 50
    slope = (predicted @ same_prefix) / (predicted @ predicted)
    assert row["same_prefix_slope"] == pytest.approx(slope)
    assert row["same_prefix_slope_low"] < 0.9 < row["same_prefix_slope_high"]
    centred = same_prefix - same_prefix.mean()
    residual = same_prefix - slope * predicted
    assert row["same_prefix_r2"] == pytest.approx(1 - (residual @ residual) / (centred @ centred))
    assert row["measured_r2"] < row["same_prefix_r2"]
    assert row["measured_slope"] == pytest.approx(
        predicted[:-1] @ measured[:-1] / (predicted[:-1] @ predicted[:-1])
    )
    assert row["mean_state_distribution"] == pytest.approx(np.nanmean(measured - same_prefix))
    assert row["mean_state_distribution_low"] < 0.002 < row["mean_state_distribution_high"]
    assert row["mean_predicted"] == pytest.approx(predicted.mean())
    assert (row["mean_logit_advantage"], row["mean_logit_weighted_advantage"]) == pytest.approx((0.3, 0.1))
    assert row["same_prefix_pearson"] == pytest.approx(-np.corrcoef(predicted, same_prefix)[0, 1])
    assert row["same_prefix_pearson_low"] < row["same_prefix_pearson"] < row["same_prefix_pearson_high"]


def test_levels_correlate_with_the_loss_after_the_same_prefixes_where_both_were_measured():
    generator = np.random.default_rng(12)
    levels = levels_of(generator, 60)
    loss = levels["sequence"].to_numpy() + generator.normal(size=60)
    changes = changes_of(loss, -loss, loss).iloc[::3]
    row = summary_of(generator.normal(size=60), loss, levels=levels.iloc[::2], changes=changes)
    both = levels.iloc[::6]
    for level in LEVELS:
        expected = np.corrcoef(both[level], loss[::6])[0, 1]
        assert row[f"{level}_same_prefix_pearson"] == pytest.approx(expected)


# --- intervals cover what they say --------------------------------------------------------------------------

RUNS = 300


@pytest.mark.parametrize(
    ("share", "rho", "steps", "least"), [(0.7, 0, 40, 0.93), (0.9, 0.5, 150, 0.9), (0.98, 0.5, 60, 0.9)]
)
def test_a_positive_share_is_covered(share, rho, steps, least):
    """Nominal 95 %; signs that remember each other cost a little."""
    values = red_noise(np.random.default_rng(8), rho, RUNS, steps) + stats.norm.ppf(share)
    covered = [low <= share <= high for low, high in map(share_interval, values)]
    assert least <= np.mean(covered) <= 0.995


def test_a_share_of_one_is_not_certain_and_less_so_where_steps_remember_each_other():
    generator = np.random.default_rng(9)
    low, high = share_interval(3 + 0.1 * red_noise(generator, 0.0, 50))
    assert 0.9 < low < 0.95
    assert high == 1
    remembering, _ = share_interval(3 + 0.1 * red_noise(generator, 0.8, 50))
    assert 0.3 < remembering < low
    assert np.isnan(share_interval(np.empty(0))).all()


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_intervals_of_slope_and_correlation_cover_the_truth(rho):
    """Nominal 95 %; steps that remember each other cost a little."""
    generator = np.random.default_rng(10)
    slope, spread, steps = 0.5, 0.01, 80
    covariance = 0.01 + spread * red_noise(generator, rho, RUNS, steps)
    loss = slope * covariance + 0.005 * red_noise(generator, rho, RUNS, steps)
    truths = {pearson: slope * spread / math.hypot(slope * spread, 0.005), slope_through_origin: slope}
    for statistic, truth in truths.items():
        covered = 0
        for run in range(RUNS):
            found = Bootstrap(200, 0, str(run))("x", statistic, covariance[run], loss[run])
            covered += found["x_low"] <= truth <= found["x_high"]
        assert 0.87 < covered / RUNS < 0.98, (statistic, covered / RUNS)
