import logging

import numpy as np
import pandas as pd
import pytest

from entropy_mechanism.analysis.consumption import CONSUMPTION_COLUMNS, consumption
from entropy_mechanism.analysis.law import ENTROPY


def curves_of(steps, entropy, accuracy, run="r", method="grpo") -> pd.DataFrame:
    frame = pd.DataFrame({"step": steps, ENTROPY: entropy, "validation/accuracy": accuracy})
    return frame.assign(run=run, model="m", train_set="t", method=method, seed=1)


def test_shares_are_of_the_runs_own_total_change():
    # of 0.4 nats 0.3 are spent at step 25 and 0.36 at 50; of 20 points 12 are gained, then 15
    curves = curves_of([0, 25, 50, 100], [0.5, 0.2, 0.14, 0.1], [0.1, 0.22, 0.25, 0.3])
    shares = consumption(curves, fractions=(0.25, 0.5))
    assert list(shares.columns) == CONSUMPTION_COLUMNS
    assert list(shares["step"]) == [25, 50]
    assert shares["entropy_left"].to_numpy() == pytest.approx([0.25, 0.1])
    assert shares["accuracy_reached"].to_numpy() == pytest.approx([0.6, 0.75])


def test_the_beginning_has_all_entropy_and_the_end_all_performance():
    generator = np.random.default_rng(0)
    curves = curves_of(range(30), generator.uniform(0, 1, 30), generator.uniform(0, 1, 30))
    shares = consumption(curves, fractions=(0, 1))
    assert shares["entropy_left"].to_numpy() == pytest.approx([1, 0])
    assert shares["accuracy_reached"].to_numpy() == pytest.approx([0, 1])


def test_default_fractions_are_steps_200_and_800_of_2400():
    steps = np.arange(0, 2401, 8)
    shares = consumption(curves_of(steps, np.linspace(0.5, 0, 301), np.linspace(0.2, 0.4, 301)))
    assert list(shares["step"]) == [200, 800]
    assert shares["accuracy_reached"].to_numpy() == pytest.approx([1 / 12, 1 / 3])


def test_steps_between_validations_are_interpolated():
    steps = np.arange(13)
    accuracy = np.where(steps % 4 == 0, steps / 20, np.nan)
    shares = consumption(curves_of(steps, np.linspace(1, 0.4, 13), accuracy), fractions=(0.5,))
    assert list(shares["step"]) == [6]
    assert shares["accuracy_reached"].iloc[0] == pytest.approx(0.5)
    assert shares["entropy_left"].iloc[0] == pytest.approx(0.5)


def test_rising_entropy_counts_as_change_and_no_change_as_nan():
    rising = consumption(curves_of([0, 1, 2], [0.1, 0.2, 0.5], [0.2, 0.2, 0.2]), fractions=(0.5,))
    assert rising["entropy_left"].iloc[0] == pytest.approx(0.75)
    assert rising["accuracy_reached"].isna().all()


def test_a_run_with_one_point_is_left_out_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        shares = consumption(curves_of([0, 1], [0.5, 0.4], [0.2, np.nan], run="short"))
    assert shares.empty
    assert list(shares.columns) == CONSUMPTION_COLUMNS
    assert "short: 1 points" in caplog.text


def test_impossible_fractions_are_refused():
    with pytest.raises(ValueError, match=r"fraction is -0\.1"):
        consumption(curves_of([0, 1], [1, 0], [0, 1]), fractions=(-0.1,))
