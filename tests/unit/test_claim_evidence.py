"""Estimates over runs: their values, intervals and counts."""

import math

import numpy as np
import pandas as pd
import pytest

from entropy_mechanism.figures.series import ending
from entropy_mechanism.report.claims.dynamics import mean_correlation, normal_tail
from entropy_mechanism.report.claims.evidence import NotMeasured, mean, of_settings, ratio, share


def rows(*values, seeds=None):
    return pd.DataFrame(
        {"model": "m", "train_set": "t", "method": "grpo", "seed": seeds or range(len(values)), "x": values}
    )


def test_a_mean_has_students_interval_over_runs():
    found = mean(rows(1.0, 2.0, 4.0), "x")
    half = 4.302653 * np.std([1, 2, 4], ddof=1) / math.sqrt(3)  # t of 97.5 % with two degrees of freedom
    assert (found.value, found.low, found.high) == pytest.approx((7 / 3, 7 / 3 - half, 7 / 3 + half), rel=1e-6)
    assert (found.runs, found.seeds, found.basis) == (3, 3, "mean of 3 runs")
    assert mean(rows(1.0, math.nan, 3.0), "x").runs == 2
    assert math.isnan(mean(rows(1.0), "x").low)
    with pytest.raises(NotMeasured):
        mean(rows(math.nan), "x")


def test_seeds_are_the_fewest_of_any_combination():
    frame = pd.concat([rows(1.0, 2.0, 3.0), rows(1.0).assign(model="n")])
    assert mean(frame, "x").seeds == 1


def test_students_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(600, 5))
    covered = [(found := mean(rows(*draw), "x")).low <= 0 <= found.high for draw in draws]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_a_share_has_wilsons_interval():
    found = share(rows(1, 1, 1, 0), pd.Series([True, True, True, False]))
    z, n, p = 1.959964, 4, 0.75
    centre, half = (p + z * z / 2 / n) / (1 + z * z / n), z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert (found.low, found.high) == pytest.approx(
        (centre - half / (1 + z * z / n), centre + half / (1 + z * z / n))
    )
    assert found.basis == "3 of 4 runs"


def test_models_weigh_alike_however_many_seeds_they_have():
    frame = pd.concat([rows(1.0, 2.0, 3.0), rows(6.0).assign(model="n")])
    found = of_settings(frame, "x")
    assert found.value == 4
    assert (found.runs, found.seeds, found.basis) == (4, 1, "mean of 2 settings")
    assert of_settings(rows(1.0, 2.0, 3.0), "x") == mean(rows(1.0, 2.0, 3.0), "x")


def test_a_ratio_is_the_geometric_mean():
    frame = rows(2.0, 8.0).assign(y=[1.0, 1.0])
    assert ratio(frame, "x", "y").value == pytest.approx(4)
    with pytest.raises(NotMeasured):
        ratio(rows(0.0).assign(y=1.0), "x", "y")


def test_the_end_is_the_last_tenth():
    assert ending(pd.Series([*np.zeros(18), 1.0, 3.0, math.nan])) == 2
    assert ending(pd.Series([5.0])) == 5
    assert math.isnan(ending(pd.Series([math.nan])))


@pytest.mark.parametrize("window", [1, 9])
def test_correlation_of_unrelated_series_rarely_excludes_zero(window):
    draws = np.random.default_rng(1)
    outside = 0
    for case in range(400):
        noise = pd.DataFrame(draws.normal(size=(150, 2)))
        run = rows(math.nan).assign(run=str(case))
        pair = noise.rolling(window, center=True, min_periods=1).mean().to_numpy().T
        found = mean_correlation({str(case): tuple(pair)}, run, window)
        assert found.low <= found.value <= found.high
        outside += found.low > 0 or found.high < 0
    assert outside < 30  # 5 % are 20; with blocks as for series that are not smoothed it is twice as many


def test_the_tail_of_a_normal_distribution_is_that_of_a_sample():
    sample = np.sort(np.random.default_rng(0).normal(size=2_000_000))[::-1]
    for fraction in (0.002, 0.02):
        top = sample[: int(fraction * sample.size)].mean() / sample[: sample.size // 2].mean()
        assert normal_tail(fraction) == pytest.approx(top, rel=0.01)
