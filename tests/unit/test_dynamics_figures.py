"""Figures and table of the dynamics show what their frames hold."""

import numpy as np
import pytest
from dynamics_frames import EVERY, SLOPE, fixed, with_dynamics
from figure_frames import make_frames

from entropy_mechanism.analysis.columns import ENTROPY_BEFORE_FILTER
from entropy_mechanism.figures import covariance_grid, entropy_change, style, theory


@pytest.fixture(scope="module")
def frames():
    return with_dynamics(make_frames(("tiny-s", "tiny-l"), seeds=(0, 1), methods=("kl-cov", "grpo", "on-policy")))


def test_errors_are_medians_over_problems_of_what_was_checked():
    drawn = theory.data(fixed())
    checks, left_out = fixed()["tabular"], fixed()["tabular_left_out"]
    line = style.by(drawn, panel="formulas", series="theorem-1")
    errors = checks.query("check == 'theorem-1'").groupby("step_size")["error"]
    np.testing.assert_allclose(line["y"], errors.median())
    np.testing.assert_allclose(line["low"], errors.min())
    assert set(style.by(drawn, panel="left out")["series"]) == {
        "lemma-1, printed",
        "lemma-1, complete",
        "theorem-1, printed",
        "theorem-1, complete",
    }
    printed = style.by(drawn, panel="left out", series="lemma-1, printed")["y"]
    followed = left_out.query("check == 'lemma-1' and states == 'followed' and form == 'printed'")
    np.testing.assert_allclose(printed, followed.groupby("step_size")["error"].median())


def test_stretches_of_negative_covariance_are_marked_and_meet_the_others():
    drawn = style.by(theory.data(fixed()), panel="entropy", series="two signs")
    rows = fixed()["counterexample_paths"].query("case == 'two signs'")
    rising, falling = (style.by(drawn, mark=mark).dropna(subset="y") for mark in ("negative covariance", "line"))
    turned = int((rows["covariance"] < 0).sum())
    assert 0 < turned < len(rows)
    assert rising["x"].tolist() == list(range(turned + 1))
    assert falling["x"].tolist() == list(range(turned, len(rows)))


def test_changes_are_of_the_largest_model_and_first_seed_baseline_first(frames):
    assert entropy_change.shown_runs(frames) == [
        f"tiny-l--chains--{method}--s0" for method in ("grpo", "kl-cov", "on-policy")
    ]
    dots = style.by(entropy_change.data(frames), panel="lemma", series="grpo")
    np.testing.assert_allclose(dots["y"], SLOPE * dots["x"])


def test_parts_of_the_change_add_up_to_all_of_it(frames):
    drawn = style.by(entropy_change.data(frames), panel="split")
    parts = {name: rows.set_index("x")["y"] for name, rows in drawn.groupby("series")}
    np.testing.assert_allclose(parts["same prefixes"] + parts["other prefixes"], parts["all"])
    rows = frames["entropy_change"].query("run == 'tiny-l--chains--grpo--s0'")
    assert parts["same prefixes"].iloc[-1] == pytest.approx(EVERY * rows["same_prefix"].sum())
    assert parts["same prefixes"].iloc[:3].tolist() == pytest.approx(
        [0, rows["same_prefix"].iloc[0], 2 * rows["same_prefix"].iloc[0]]
    )
    curve = frames["curves"].query("run == 'tiny-l--chains--grpo--s0'")[ENTROPY_BEFORE_FILTER]
    expected = curve.iloc[-5:].mean() - curve.iloc[:5].mean()  # nine steps, cut at the ends
    assert parts["all"].iloc[-1] == pytest.approx(expected)


def test_a_step_without_update_changes_nothing(frames):
    changes = frames["entropy_change"]
    run = "tiny-l--chains--grpo--s0"
    without = changes[~((changes["run"] == run) & (changes["step"] == 2))]
    drawn = style.by(entropy_change.data(frames | {"entropy_change": without}), panel="split")
    sums = style.by(drawn, series="same prefixes")["y"].tolist()
    assert sums[2] == sums[3] == sums[4] != sums[5]


def test_the_grid_has_a_row_per_kind_of_run_and_averages_seeds(frames):
    runs = frames["runs"].assign(task="math")
    table = covariance_grid.table(frames | {"runs": runs})
    assert table[["model", "method"]].to_numpy().tolist() == [
        [model, method] for model in ("tiny-s", "tiny-l") for method in ("grpo", "kl-cov", "on-policy")
    ]
    assert (table["seeds"] == 2).all()
    assert (table["steps"] == 80).all()
    assert table["positive_share"].tolist() == pytest.approx([0.91] * 6)
    lines = style.markdown(covariance_grid.display(table)).splitlines()
    assert lines[2].startswith("| math | tiny-s | chains | GRPO | 4 | 2 | 80 | 91 [10, 10] | 0.10 [0.10, 0.10] |")
    assert "| on-policy | 2 | 80 |" in lines[4]


def test_what_was_not_measured_is_a_dash(frames):
    summary = frames["dynamics_summary"].drop(columns=[c for c in frames["dynamics_summary"] if "same" in c])
    summary = summary.assign(pearson=np.nan)
    table = covariance_grid.table(frames | {"dynamics_summary": summary})
    lines = style.markdown(covariance_grid.display(table)).splitlines()
    assert lines[2].startswith("| – | tiny-s |") or lines[2].startswith("| math | tiny-s |")
    assert lines[2].endswith("| – | 0.1 [0.1, 0.1] | – |")
    assert "No run" in style.markdown(covariance_grid.display(covariance_grid.table({})))
