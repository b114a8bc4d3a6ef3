"""Every figure shows the right numbers: of the right runs, averaged as it says, beside the paper's."""

import warnings

import numpy as np
import pandas as pd
import pytest
from figure_frames import FINAL, A, B, make_frames

from entropy_mechanism.figures import (
    fig01,
    fig02,
    fig03,
    fig04,
    fig05,
    fig06,
    fig07,
    fig08,
    fig09,
    fig10,
    fig11,
    fig12,
    fig13,
    fig14,
    published,
    style,
    sweep,
)


def test_fig01_shows_seed_means_and_ranges(many):
    drawn = fig01.data(many)
    line = style.by(drawn, panel="training", series="entropy", source="ours")
    curves = many["curves"]
    runs = curves[(curves["model"] == "mistral-24b") & (curves["method"] == "grpo")]  # the largest model
    zero, one = (runs[runs["seed"] == seed][style.ENTROPY].to_numpy() for seed in (0, 1))
    np.testing.assert_allclose(line["y"], (zero + one) / 2)
    np.testing.assert_allclose(line["low"], np.minimum(zero, one))
    np.testing.assert_allclose(line["high"], np.maximum(zero, one))
    assert line["x"].tolist() == [4 * step for step in range(25)]
    accuracy = style.by(drawn, panel="training", series="accuracy", source="ours")
    assert accuracy["x"].tolist() == [0, 16, 32, 48, 64, 80, 96]  # only where it was measured
    assert accuracy["y"].iloc[0] == pytest.approx(100 * (-A * np.exp(0.5) + B))


def test_fig01_stretches_the_published_shape_onto_our_ends(frames):
    drawn = style.by(fig01.data(frames), panel="training", series="entropy")
    ours, paper = (style.by(drawn, source=source) for source in ("ours", "paper, stretched"))
    for column in ("x", "y"):
        np.testing.assert_allclose(ours[column].iloc[[0, -1]], paper[column].iloc[[0, -1]])
    raw = published.load("fig01_left").query("quantity == 'entropy'")["value"].to_numpy()
    shape = (raw - raw[0]) / (raw[-1] - raw[0])
    np.testing.assert_allclose(
        (paper["y"] - paper["y"].iloc[0]) / (paper["y"].iloc[-1] - paper["y"].iloc[0]), shape
    )


def test_fig03_draws_dots_and_the_fitted_law_per_family(many):
    drawn = fig03.data(many)
    assert list(dict.fromkeys(drawn["panel"])) == ["tiny", "Qwen", "Mistral"]
    ours = style.by(drawn, source="ours")
    assert set(ours["run"].str.split("--").str[2]) == {"grpo"}
    for mark in ("dot", "fit"):  # the invented dots lie on the law
        here = style.by(ours, mark=mark)
        np.testing.assert_allclose(here["y"], 100 * (-A * np.exp(here["x"]) + B))
    for _, model in ours.groupby("series"):
        dots, fit = style.by(model, mark="dot")["x"], style.by(model, mark="fit")["x"]
        assert (dots.min(), dots.max()) == pytest.approx((fit.min(), fit.max()))
    assert set(style.by(drawn, source="paper")["panel"]) == {"Qwen"}  # the same models, so comparable


def test_fig02_averages_over_runs_and_shows_the_printed_values(many):
    drawn = fig02.data(many)
    ours = style.by(drawn, source="ours", mark="bar").set_index(["panel", "series"])["y"]
    assert ours["1/12 of training", "entropy left"] == pytest.approx(100 * (0.4 + 0.42) / 2)
    assert ours["1/3 of training", "gain reached"] == pytest.approx(90)
    paper = style.by(drawn, source="paper").set_index(["panel", "series"])["y"].to_dict()
    assert list(paper.values()) == [27, 76, 6, 93]
    assert len(style.by(drawn, mark="dot")) == 4 * 4 * 2  # bars, models, seeds


def test_fig05_separates_fitted_from_predicted_points_at_15_percent(frames):
    drawn = style.by(fig05.data(frames), source="ours")
    fitted, predicted = (style.by(drawn, mark=mark)["x"] for mark in ("fitted", "predicted"))
    assert (len(fitted), len(predicted)) == (3, 8)
    solid, dashed = (style.by(drawn, mark=mark)["x"] for mark in ("fit", "forecast"))
    assert solid.min() == pytest.approx(fitted.min()) == dashed.max()
    assert dashed.min() == pytest.approx(predicted.min())
    np.testing.assert_allclose(style.by(drawn, mark="forecast")["y"], 100 * (-A * np.exp(dashed) + B))


def series_of(drawn, **wanted):
    return list(dict.fromkeys(style.by(drawn, **wanted)["series"]))


def test_means_are_taken_over_seeds_and_never_over_training_sets(several):
    line = style.by(fig01.data(several), panel="training", series="entropy", source="ours")
    assert line["run"].iloc[0] == "tiny--chains--grpo--s0 tiny--chains--grpo--s1"
    drawn = style.by(fig11.data(several), source="ours")
    panels = {panel.split(" / ")[0] for panel in drawn["panel"]}
    assert panels == {"tiny on chains", "tiny on hard", "tiny on code-programs"}
    for _, curve in drawn.groupby(["panel", "series"]):
        (runs,) = set(curve["run"])
        assert len({run.split("--")[1] for run in runs.split()}) == 1


def test_fig02_gives_every_model_the_same_weight(many):
    consumption = many["consumption"].copy()
    extra = consumption[(consumption["model"] == "tiny-s") & (consumption["method"] == "grpo")]
    more = [extra.assign(run=f"tiny-s--chains--grpo--s{seed}", seed=seed) for seed in range(2, 9)]
    runs = [many["runs"].iloc[:1].assign(run=rows["run"].iloc[0]) for rows in more]
    consumption = pd.concat([consumption, *more])
    consumption.loc[consumption["model"] == "tiny-s", "entropy_left"] += 0.4
    drawn = fig02.data({"consumption": consumption, "runs": pd.concat([many["runs"], *runs])})
    bar = style.by(drawn, panel="1/12 of training", series="entropy left", source="ours", mark="bar")["y"].item()
    assert bar == pytest.approx(100 * (0.41 + 0.4 / 4))


def test_figures_3_and_4_tell_tasks_apart_by_the_training_problems(several):
    math, code = fig03.data(several), fig04.data(several)
    assert series_of(math, source="ours") == ["tiny on chains", "tiny on hard"]
    assert series_of(code) == ["tiny"]
    assert all("--code-programs--grpo--" in run for text in code["run"] for run in text.split())
    assert set(style.by(math, source="paper")["series"]) == {
        f"Qwen2.5-{size}" for size in ("0.5B", "1.5B", "3B", "7B", "32B")
    }


def test_fits_of_several_seeds_are_their_mean_and_range(several):
    law = several["law"].copy()
    law.loc[law["seed"] == 1, "b"] += 0.1
    drawn = fig04.data(several | {"law": law})
    fit = style.by(drawn, mark="fit")
    np.testing.assert_allclose(fit["low"], 100 * (-A * np.exp(fit["x"]) + B))
    np.testing.assert_allclose(fit["high"], fit["low"] + 10)
    np.testing.assert_allclose(fit["y"], fit["low"] + 5)
    assert style.by(drawn, mark="dot")["run"].nunique() == 2  # dots of all


def test_fig05_has_a_panel_for_each_task(several):
    drawn = fig05.data(several)
    assert series_of(drawn, panel="math", source="ours") == ["tiny on chains", "tiny on hard"]
    assert series_of(drawn, panel="code") == ["tiny"]
    assert series_of(drawn, source="paper") == [f"Qwen2.5-{size}" for size in ("32B", "7B", "3B", "1.5B")]


def test_fig06_draws_own_fits_and_the_common_one_with_its_test(several):
    drawn = fig06.data(several)
    panels = ["tiny on chains", "tiny on code-programs", "tiny on hard"]
    assert list(dict.fromkeys(drawn["panel"])) == panels
    for panel in panels:
        assert series_of(drawn, panel=panel, source="ours") == [*fig06.METHODS, "common"]
        assert style.by(drawn, panel=panel, mark="dot", series="rloo")["run"].nunique() == 2
    common = several["common_law"].copy()
    common.loc[common["train_set"] == "hard", "verdict"] = "several curves"
    figure = fig06.draw(several | {"common_law": common})
    titles = [axes.get_legend().get_title().get_text() for axes in figure.axes]
    assert [title.split("\n")[1].split(" (")[0] for title in titles] == [
        "one curve",
        "one curve",
        "several curves",
    ]
    assert "p = 0.4, ΔAICc = +7.2" in titles[0]


def test_fig07_shows_coefficients_over_the_logarithm_of_the_size(many):
    drawn = fig07.data(many)
    assert list(dict.fromkeys(drawn["panel"])) == ["math / a", "math / b"]
    dots = style.by(drawn, panel="math / a", mark="dot", source="ours")
    np.testing.assert_allclose(dots["x"], np.log(np.array([1, 2, 3, 4]) * 1000 / 1e9))
    np.testing.assert_allclose(dots["y"], 0.9 + 0.03 * dots["x"])
    np.testing.assert_allclose(dots["y"] - dots["low"], 0.02)
    line = style.by(drawn, panel="math / a", mark="fit", source="ours")
    np.testing.assert_allclose(line["y"], 0.9 + 0.03 * line["x"])
    left_out = style.by(drawn, panel="math / a", mark="left out")
    np.testing.assert_allclose(left_out["y"], dots["y"] + 0.01)


def test_fig07_shows_the_published_coefficients_at_the_papers_sizes(many):
    paper = style.by(fig07.data(many), panel="math / a", source="paper")
    dots, line = (style.by(paper, mark=mark) for mark in ("dot", "fit"))
    assert dots["series"].tolist() == ["qwen2.5-7b", "qwen2.5-32b"]
    np.testing.assert_allclose(dots["x"], np.log([6.5, 31]))
    np.testing.assert_allclose(dots["y"], 0.2 + 0.03 * np.log([6.5, 31]))
    np.testing.assert_allclose(line[["x", "y"]], dots[["x", "y"]])
    without = fig07.data({name: frame for name, frame in many.items() if name != "published_size_law"})
    assert set(without["source"]) == {"ours"}
    labels = [text.get_text() for text in fig07.draw(many).legends[0].get_texts()]
    alone = fig07.draw({**many, "published_size_law": pd.DataFrame()})
    assert [text.get_text() for text in alone.legends[0].get_texts()] == labels[:-1]


def test_fig08_averages_over_seeds():
    frames = make_frames(methods=("on-policy",), seeds=(0, 1), steps=8)
    dynamics = frames["dynamics"]
    dynamics["smooth"] += 0.01 * dynamics["seed"]
    drawn = style.by(fig08.data(frames), source="ours", series="covariance")
    expected = 0.02 * np.exp(-np.arange(8) / 10)
    np.testing.assert_allclose(drawn["y"], expected + 0.005)
    np.testing.assert_allclose(drawn["low"], expected)
    np.testing.assert_allclose(drawn["high"], expected + 0.01)


# --- Sweeps ---


def test_fig09_orders_runs_by_their_coefficient(several):
    drawn = style.by(fig09.data(several), panel="bonus / entropy")
    assert series_of(drawn) == ["0", "0.001", "0.01"]
    runs = {name: rows["run"].iloc[0] for name, rows in drawn.groupby("series")}
    assert runs["0.01"] == "tiny--chains--entropy-0.01--s0 tiny--chains--entropy-0.01--s1"
    assert runs["0"] == "tiny--chains--grpo--s0 tiny--chains--grpo--s1"  # neither other algorithms nor objectives


def test_fig10_keeps_estimators_apart(several):
    drawn = style.by(fig10.data(several), panel="reference / accuracy")
    assert series_of(drawn) == ["0", "0.05", "0.1"]
    assert set(style.by(drawn, series="0.1")["run"]) == {"tiny--chains--k3-0.1--s0 tiny--chains--k3-0.1--s1"}


def test_fig12_sweeps_what_differs_in_one_number_only(several):
    drawn = fig12.data(several)
    assert series_of(drawn, panel="clip-cov / entropy") == ["GRPO", "0.005", "0.02"]  # 0.5 percent
    assert series_of(drawn, panel="kl-cov / accuracy") == ["GRPO", "0", "2"]
    assert "kl-cov-old" not in " ".join(drawn["run"])


def test_columns_of_a_sweep_share_their_axis_whatever_they_span():
    frames = make_frames(methods=("kl-cov", "clip-cov"), final={"kl-cov": 0.004, "clip-cov": 0.4}, steps=60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = fig12.draw(frames)
        figure.draw_without_rendering()
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log", "linear", "linear"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_a_sweep_without_a_coefficient_says_so(several):
    frames = {name: frame[frame["method"] == "grpo"] for name, frame in several.items() if "method" in frame}
    assert fig09.data(frames).empty
    assert "entropy bonus" in fig09.draw(frames).axes[0].texts[0].get_text()


def test_coefficients_are_coloured_in_order():
    from matplotlib.colors import to_rgb

    names = ["0", "0.001", "0.01", "0.05", "0.1"]
    found = sweep.looks(names)
    assert list(found) == names
    lightness = [np.dot(to_rgb(look.colour), (0.21, 0.72, 0.07)) for look in list(found.values())[1:]]
    assert lightness == sorted(lightness)
    assert len({look.marker for look in found.values()}) == len(names)
    assert found["0"].colour == style.METHODS["grpo"].colour
    assert sweep.looks(["GRPO", "0"])["0"].colour != sweep.looks(["0"])["0"].colour  # 0 is no GRPO there


def test_fig13_compares_training_sets_of_one_model(several):
    drawn = fig13.data(several)
    assert series_of(drawn, source="ours") == ["chains", "hard"]
    assert series_of(drawn, source="paper") == ["Eurus-2", "DAPO-MATH"]
    dapo = style.by(drawn, series="DAPO-MATH")
    assert dapo["x"].between(0.015, 0.7).all()
    assert dapo["y"].between(20, 41).all()


def test_fig14_draws_every_model_it_is_given(many):
    assert series_of(fig14.data(many)) == ["tiny-s", "tiny-l", "qwen2.5-7b", "mistral-24b"]


def test_fig08_shows_the_on_policy_run_and_three_difficulties(frames):
    drawn = fig08.data(frames)
    ours = style.by(drawn, source="ours")
    assert set(ours["run"]) == {"tiny--chains--on-policy--s0"}
    assert set(style.by(ours, panel="right")["series"]) == {
        f"group_accuracy={k}" for k in ("0.125", "0.5", "0.875")
    }
    loss = style.by(ours, series="minus_entropy_difference")
    np.testing.assert_allclose(loss["y"], 0.05 * np.exp(-np.arange(41) / 10))
    covariance = style.by(ours, series="covariance")
    np.testing.assert_allclose(covariance["y"], 0.02 * np.exp(-np.arange(40) / 10))  # the last step has no records
    assert fig08.on_policy_runs(make_frames(methods=("grpo",), steps=8)) == []


def test_fig08_shows_only_runs_with_token_records():
    frames = make_frames(methods=("on-policy",), seeds=(0, 1), steps=8)
    dynamics = frames["dynamics"]
    dynamics["source"] = dynamics["source"].where(dynamics["seed"] == 1, "logged")
    assert fig08.on_policy_runs(frames) == ["tiny--chains--on-policy--s1"]
    frames["dynamics"] = dynamics.assign(source="logged")
    assert fig08.on_policy_runs(frames) == []
    assert fig08.data(frames).empty


def test_fig11_compares_the_methods_of_one_model(frames):
    drawn = fig11.data(frames)
    ours = style.by(drawn, source="ours")
    assert set(ours["series"]) == set(fig11.METHODS)
    entropy = style.by(ours, panel="tiny / entropy", series="kl-cov")
    np.testing.assert_allclose(
        entropy["y"], FINAL["kl-cov"] + (0.5 - FINAL["kl-cov"]) * np.exp(-np.arange(41) / 6)
    )
    assert set(style.by(drawn, source="paper")["panel"].str.split(" / ").str[0]) == {"qwen2.5-7b", "qwen2.5-32b"}


def test_steps_that_not_every_seed_has_are_left_out():
    frame = pd.DataFrame(
        {"run": ["a", "a", "b"], "step": [0, 1, 0], "gradient_steps": [0, 4, 0], "x": [1.0, 9.0, 3.0]}
    )
    means = style.over_seeds(frame, "x")
    assert means["step"].tolist() == [0]
    assert means.loc[0, ["mean", "low", "high"]].tolist() == [2, 1, 3]


def test_unreadable_stretches_of_published_curves_become_gaps():
    curve = pd.DataFrame({"series": "s", "step": [0, 8, 200, 208], "value": [1.0, 2.0, 3.0, 4.0]})
    assert published.with_gaps(curve)["value"].isna().tolist() == [False, False, True, False, False]
