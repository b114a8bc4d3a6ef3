"""The size law against known coefficients."""

import math

import numpy as np
import pandas as pd
import pytest

from entropy_mechanism.analysis.size_law import SIZE_LAW_COLUMNS, size_law

SIZES = {"s": 3.6e8, "m": 1.3e9, "l": 2.8e9, "xl": 6.5e9, "xxl": 3.1e10}


def frames(value, sizes=SIZES, seeds=(1,), task="math"):
    """law and runs of GRPO runs whose a is `value(ln billions, seed)` and whose b is 0.1 more."""
    law, runs = [], []
    for model, size in sizes.items():
        for seed in seeds:
            name, a = f"{model}--{task}--grpo--s{seed}", value(math.log(size / 1e9), seed)
            ends = {"a": a, "a_low": a - 0.01, "a_high": a + 0.02}
            ends |= {f"b{key[1:]}": number + 0.1 for key, number in ends.items()}
            law.append({"run": name, "model": model, "method": "grpo", **ends})
            runs.append({"run": name, "model": model, "task": task, "non_embedding_parameters": size})
    return pd.DataFrame(law), pd.DataFrame(runs)


def test_an_exact_line_is_given_back_with_no_error_left_out():
    found = size_law(*frames(lambda x, _: 0.1 + 0.05 * x))
    assert list(found.columns) == SIZE_LAW_COLUMNS
    assert found["coefficient"].tolist() == ["a"] * 5 + ["b"] * 5
    assert found["slope"].tolist() == pytest.approx([0.05] * 10)
    assert found["intercept"].tolist() == pytest.approx([0.1] * 5 + [0.2] * 5)
    assert found["fitted"].tolist() == pytest.approx(found["value"].tolist())
    assert found["left_out_error"].abs().max() < 1e-12
    assert (found["sizes"] == 5).all()


def test_a_size_left_out_is_predicted_by_the_others():
    found = size_law(*frames(lambda x, _: 0.1 + 0.05 * x + (0.02 if x > 3 else 0))).set_index("model")
    largest = found[found["coefficient"] == "a"].loc["xxl"]
    assert largest["left_out_prediction"] == pytest.approx(0.1 + 0.05 * math.log(31))
    assert largest["left_out_error"] == pytest.approx(-0.02)
    others = [0.1 + 0.05 * math.log(size / 1e9) for size in list(SIZES.values())[:4]]
    assert largest["left_out_error_of_mean"] == pytest.approx(np.mean(others) - largest["value"])


def test_the_slope_is_recovered_and_its_interval_covers():
    random, hits, slopes = np.random.default_rng(1), 0, []
    for _ in range(100):
        found = size_law(*frames(lambda x, _: 0.1 + 0.05 * x + random.normal(0, 0.02))).iloc[0]
        hits += found["slope_low"] <= 0.05 <= found["slope_high"]
        slopes.append(found["slope"])
    assert np.mean(slopes) == pytest.approx(0.05, abs=0.003)
    assert hits / 100 >= 0.89  # nominal 0.95, standard error 0.022


def test_seeds_are_averaged_and_tasks_kept_apart():
    math_frames = frames(lambda x, seed: 0.1 + 0.05 * x + 0.01 * seed, seeds=(1, 2))
    code = frames(lambda x, _: 0.3 - 0.02 * x, task="code")
    law, runs = (pd.concat(parts) for parts in zip(math_frames, code, strict=True))
    law = pd.concat([law, law.assign(method="kl-cov", a=9.0)])  # only the baseline's runs enter
    found = size_law(law, runs)
    assert set(found["task"]) == {"math", "code"}
    first = found[(found["task"] == "math") & (found["coefficient"] == "a") & (found["model"] == "s")].iloc[0]
    mean = 0.1 + 0.05 * math.log(0.36) + 0.015
    assert first["value"] == pytest.approx(mean)
    assert (first["low"], first["high"]) == pytest.approx((mean - 0.015, mean + 0.025))
    assert first["runs"] == 2
    assert found[(found["task"] == "code") & (found["coefficient"] == "a")]["slope"].tolist() == pytest.approx(
        [-0.02] * 5
    )


@pytest.mark.parametrize("count", [0, 1, 2])
def test_two_sizes_make_no_line(count):
    found = size_law(*frames(lambda x, _: 0.1 + 0.05 * x, dict(list(SIZES.items())[: max(count, 1)])))
    if count == 0:
        law, runs = frames(lambda x, _: math.nan)
        found = size_law(law, runs)
        assert found.empty
        assert list(found.columns) == SIZE_LAW_COLUMNS
        return
    assert len(found) == 2 * count
    assert found[["slope", "intercept", "left_out_error"]].isna().all(axis=None)
    assert found["value"].notna().all()


def test_a_missing_column_is_named():
    law, runs = frames(lambda x, _: x)
    with pytest.raises(ValueError, match="runs: missing task"):
        size_law(law, runs.drop(columns="task"))
