"""Figures and tables show the right numbers, in one look, with the same bytes for the same data."""

import io
import json
import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_frames import CLIP, CLIP_COV, FINAL, KL_COV, METHODS, A, B, empty, make_frames, settings

from entropy_mechanism import files
from entropy_mechanism.config import load_experiment
from entropy_mechanism.figures import (
    averages,
    comparison,
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
    registry,
    selection,
    style,
    sweep,
    table1,
    table2,
)
from entropy_mechanism.plan import Plan
from entropy_mechanism.stages.figure import figure as draw_figure

EXPERIMENTS = Path(__file__).parents[2] / "config/experiments"

DRAWN = [*(f"fig{number:02}" for number in range(1, 15)), "table1", "table2", "comparison", "selection"]


@pytest.fixture(scope="module")
def frames():
    return make_frames()


@pytest.fixture(scope="module")
def many():
    models = ("tiny-s", "tiny-l", "qwen2.5-7b", "mistral-24b")
    return make_frames(models, seeds=(0, 1), methods=("grpo", "kl-cov"), steps=24)


@pytest.fixture(scope="module")
def several():
    """Both tasks, two seeds, several algorithms, coefficients and training sets of one model."""
    bonus = {f"entropy-{value:g}": settings(regularisation={"entropy": value}) for value in (0.01, 0.001)}
    reference = {
        f"{estimator}-{value:g}": settings(
            regularisation={"reference_kl": value, "kl_estimator": estimator}, objective=CLIP | {"clip_high": 0.2}
        )
        for estimator, value in (("k3", 0.1), ("k3", 0.05), ("k1", 0.1))
    }
    clip = {"clip-cov-0.5": settings(CLIP_COV | {"fraction": 0.5, "unit": "percent"})}
    kl = {"kl-cov-0": settings(KL_COV | {"coefficient": 0.0}), "kl-cov-old": settings(KL_COV | {"policy": "old"})}
    made = bonus | reference | clip | kl
    methods = ("grpo", "rloo", "prime", "reinforce++", "clip-cov", "kl-cov", *made)
    sets = ("chains", "hard", "code-programs")
    return make_frames(("tiny",), seeds=(0, 1), methods=methods, steps=24, train_sets=sets, made=made)


def one_run(frames):
    """The rows of one GRPO run, which has no spread and nothing to be compared with."""
    run = "tiny--chains--grpo--s0"
    keys = {"run": [run], "policy": [run], "model": ["tiny"]}
    chosen = {name: next((key for key in keys if key in frame), None) for name, frame in frames.items()}
    return {
        name: frame[frame[key].isin(keys[key])] if (key := chosen[name]) else frame
        for name, frame in frames.items()
    }


def without_measurements(frames):
    """The same runs, with nothing measured: every number but those of the runs' identity is NaN."""
    kept = {
        "seed",
        "step",
        "gradient_steps",
        "fraction",
        "updates_per_rollout",
        "non_embedding_parameters",
        "fitted",
    }
    return {
        name: frame.assign(
            **{
                column: np.nan
                for column in frame.select_dtypes("number")
                if column not in kept or name == "size_law"
            }
        )
        for name, frame in frames.items()
    }


def two_points(frames):
    """Runs that were stopped after their second row."""
    return {name: frame[frame["step"] <= 1] if "step" in frame else frame for name, frame in frames.items()}


ITEMS = [name for name in (*registry.FIGURES, *registry.TABLES) if name in DRAWN]
CASES = {
    "whole": dict,
    "empty": empty,
    "one run": one_run,
    "not measured": without_measurements,
    "two points": two_points,
    "other methods": lambda frames: {
        name: frame[frame["method"] == "clip-higher"] if "method" in frame else frame.iloc[:0]
        for name, frame in frames.items()
    },
    "no files": lambda frames: {},
    "unknown settings": lambda frames: frames | {"runs": frames["runs"][["run", "model", "train_set", "method"]]},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", [name for name in ITEMS if name in registry.FIGURES])
def test_figures_draw_without_warnings_at_the_width_of_one_column(name, case, frames):
    module = registry.load(name)
    given = CASES[case](frames)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = module.draw({key: given[key] for key in module.INPUTS if key in given})
        figure.draw_without_rendering()
    assert figure.get_size_inches()[0] == style.ONE_COLUMN
    for axes in [axes for axes in figure.get_axes() if axes.axison]:
        assert axes.has_data()
    if case == "whole":
        extent = figure.get_tightbbox()
        assert extent.x0 > -0.02
        assert extent.x1 < style.ONE_COLUMN + 0.02  # nothing is cut off


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", [name for name in ITEMS if name in registry.TABLES])
def test_tables_are_written_whatever_was_measured(name, case, frames):
    module = registry.load(name)
    given = CASES[case](frames)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = module.table({key: given[key] for key in module.INPUTS if key in given})
        text = module.markdown(table)
        read = module.markdown(pd.read_csv(io.StringIO(table.to_csv(index=False))))
    assert text.strip()
    assert read.strip()  # the report reads the CSV file


@pytest.mark.parametrize("name", [name for name in registry.FIGURES if name in DRAWN])
def test_many_models_seeds_and_sets_are_drawn(name, many):
    module = registry.load(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.draw({key: many[key] for key in module.INPUTS}).draw_without_rendering()


@pytest.mark.parametrize("case", ["empty", "no files", "not measured"])
@pytest.mark.parametrize("name", [name for name in registry.FIGURES if name in DRAWN])
def test_a_figure_without_data_says_so(name, case, frames):
    module = registry.load(name)
    given = CASES[case](frames)
    assert module.data(given).empty
    texts = [text.get_text() for axes in module.draw(given).axes for text in axes.texts]
    assert texts
    assert all(text.strip() for text in texts)


@pytest.mark.parametrize("name", [name for name in registry.FIGURES if name in DRAWN])
def test_same_data_gives_same_bytes(name, frames):
    figures = [registry.load(name).draw({key: frame.copy() for key, frame in frames.items()}) for _ in range(2)]
    for suffix in ("pdf", "svg"):
        first, second = (style.render(figure, suffix) for figure in figures)
        assert first == second
        assert b"Date" not in first
        if suffix == "pdf":
            assert b"/FontFile2" in first  # TrueType letters inside the file
            assert b"/Type3" not in first
        else:
            assert b"//" not in first.replace(b"http://www.w3.org/", b"").replace(b"-//W3C//DTD SVG 1.1//EN", b"")


def test_files_are_written_by_suffix_without_dates(frames, tmp_path):
    for name in ("one.png", "two.png", "one.pdf"):
        style.save(fig02.draw(frames), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.pdf", "one.png", "two.png"]


def test_user_settings_do_not_change_a_figure(frames):
    import matplotlib

    wanted = style.render(fig02.draw(frames), "png")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "figure.dpi": 300}):
        assert style.render(fig02.draw(frames), "png") == wanted


@pytest.mark.parametrize("name", [*registry.FIGURES, *registry.TABLES])
def test_every_module_is_declared_uniformly(name):
    module = registry.load(name)
    assert registry.entry(name).inputs == module.INPUTS
    assert module.TITLE
    assert module.CAPTION.endswith(".")
    wanted = ("data", "draw") if name in registry.FIGURES else ("table", "display", "markdown")
    assert all(callable(getattr(module, function)) for function in wanted)


def test_planning_imports_neither_matplotlib_nor_pandas():
    code = "import sys, entropy_mechanism.figures.registry; assert not {'matplotlib', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(KeyError, match=r"fig99.*fig01"):
        registry.load("fig99")
    with pytest.raises(KeyError, match=r"nothing.*table1"):
        published.load("nothing")


# --- What is drawn ---


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


# --- Looks and names ---


def test_methods_look_the_same_in_every_figure(frames):
    for axes in fig11.draw(frames).axes:
        assert [line.get_color() for line in axes.lines] == [style.METHODS[name].colour for name in fig11.METHODS]
    looks = [style.method_look(method) for method in METHODS]
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == len(METHODS)
    assert style.method_look("KL_Cov") == style.method_look("kl-cov-32b") == style.METHODS["kl-cov"]
    assert style.method_look("reinforce-plus-plus") == style.METHODS["reinforce++"]
    assert style.method_label("kl-cov-old") == "KL-Cov, old"
    reserved = {style.ENTROPY_COLOUR, style.ACCURACY_COLOUR, style.COVARIANCE_COLOUR}
    assert not reserved & {look.colour for look in style.METHODS.values()}


@pytest.mark.parametrize("experiment", ["paper", "tiny-full"])
@pytest.mark.parametrize("item", ["ceiling", "fig09", "fig10", "fig12"])
def test_no_two_methods_of_a_figure_look_alike(experiment, item):
    from matplotlib.colors import to_rgb

    plan = Plan(load_experiment(EXPERIMENTS / f"{experiment}.yaml"))
    methods = {style.method_key(run.method) for run in plan.shown(item)}
    looks = style.method_looks(methods)
    assert {look.label for look in looks.values()} == {style.method_label(method) for method in methods}
    for one, other in combinations(looks.values(), 2):
        apart = np.abs(np.subtract(to_rgb(one.colour), to_rgb(other.colour))).max()
        assert apart > 0.15 or one.marker != other.marker, (one, other)
    for method in methods:  # nothing depends on what is shown beside it, so it looks so in every figure
        assert style.method_looks([method])[method] == looks[method]


def test_coefficients_share_a_hue_and_are_darker_the_larger_they_are():
    from matplotlib.colors import rgb_to_hsv, to_rgb

    names = [f"entropy-{value}" for value in ("0", "1e-4", "0.001", "0.005", "0.01", "0.05", "0.1")]
    colours = [to_rgb(style.method_look(name).colour) for name in names]
    light = [sum(colour) for colour in colours]
    assert light == sorted(light, reverse=True)
    assert len(set(light[1:])) == len(light[1:])
    hues = [rgb_to_hsv(colour)[0] for colour in colours]
    assert hues == pytest.approx([hues[0]] * len(hues), abs=0.02)


def test_names_that_look_alike_by_chance_are_told_apart_within_a_figure():
    alike = [f"clip-cov-{name}" for name in ("text", "old", "few")]
    assert len({replace(style.method_look(name), label="") for name in alike}) == 1
    looks = style.method_looks([*alike, "kl-cov", "kl-cov-32b"])
    assert len({looks[name].marker for name in alike}) == 3
    assert looks == style.method_looks(list(looks)[::-1])
    assert looks["kl-cov"] == looks["kl-cov-32b"] == style.METHODS["kl-cov"]


@pytest.mark.parametrize("sizes", [(5e3, 2e4, 1e5, 5e5), (4e8, 3e9, 7e9, 3e10)])
def test_larger_models_are_darker(sizes):
    from matplotlib.colors import to_rgb

    shades = [sum(to_rgb(style.model_look("m", size).colour)) for size in sizes]
    assert shades == sorted(shades, reverse=True)
    assert len(set(shades)) == len(sizes)


def test_a_models_marker_is_its_familys():
    markers = {style.model_look(name, 1e5).marker for name in ("qwen-w64", "llama-w64", "mistral-w64")}
    assert len(markers) == 3
    assert style.model_look("qwen-w16", 5e3).marker == style.model_look("qwen2.5-7b", 7e9).marker


def test_names_are_displayed_as_people_write_them():
    assert style.model_label("qwen2.5-7b") == "Qwen2.5-7B"
    assert style.model_label("tiny-s") == "tiny-s"
    assert style.method_label("kl-cov") == "KL-Cov"
    assert style.family("llama3.1-8b") == style.family("deepseek-math-7b") == "LLaMA and DeepSeek"
    assert style.method_order(["zeta", "kl-cov", "base", "grpo"]) == ["base", "grpo", "kl-cov", "zeta"]


# --- Tables ---


def test_table1_puts_seed_means_beside_the_printed_values(many):
    table = table1.table(many).set_index("top_fraction")
    assert table[table1.PAPER].tolist() == [5.654, 3.112, 1.385, 0.351, 0.152, 0.003]
    assert table.loc[0.2, "tiny-s"] == pytest.approx(0.8 * 1.5)
    assert table.loc[1.0, "tiny-s"] == pytest.approx(0.01)
    assert "| top 0.02 % | 5.654 |" in table1.markdown(table1.table(many))


def test_table2_has_a_row_per_policy_with_intervals_and_both_averages(many):
    table = table2.table(many)
    assert table[["model", "method"]].to_numpy().tolist()[:3] == [
        ["tiny-s", m] for m in ("base", "grpo", "kl-cov")
    ]
    ours = table[table["source"] == "ours"]
    assert len(ours) == 4 * 3
    assert table2.benchmarks_of(table) == ["easy greedy", "hard greedy", "pooled", "macro"]
    row = table[(table["model"] == "tiny-s") & (table["method"] == "kl-cov")].iloc[0]
    assert row["easy greedy"] == pytest.approx((0.82 + 0.92) / 2)
    assert (row["easy greedy_low"], row["easy greedy_high"]) == pytest.approx((0.82, 0.92))
    assert row["seeds"] == 2


def test_table2_shows_clean_scores_beside_the_others_where_problems_were_left_out(frames):
    scores = frames["scores"].copy()
    hard = scores["benchmark"] == "hard"
    scores.loc[hard, "clean_problems"] = 60
    scores.loc[hard, "clean_score"] -= 0.2
    whole = table2.table(frames | {"scores": scores})
    table = whole[whole["source"] == "ours"]
    assert table["hard greedy_contained"].tolist() == [40] * len(table)
    assert table["easy greedy_contained"].tolist() == [0] * len(table)
    assert table["hard greedy_clean"].to_numpy() == pytest.approx(table["hard greedy"].to_numpy() - 0.2)
    assert table["easy greedy_clean"].tolist() == table["easy greedy"].tolist()
    header = table2.markdown(whole).splitlines()[0]
    assert "| hard greedy | hard greedy, clean |" in header
    assert "easy greedy, clean" not in header


def test_table2_sets_the_published_rows_below_ours(frames):
    table = table2.table(frames)
    paper = table[table["source"] == "paper"].set_index(["model", "method"])
    assert len(paper) == 8
    assert paper.loc[("Qwen2.5-7B", "kl-cov"), "pooled"] == pytest.approx(0.406)
    assert paper.loc[("Qwen2.5-7B", "kl-cov"), "macro"] == pytest.approx(0.4109, abs=1e-4)
    assert paper["easy greedy"].isna().all()  # no benchmark of the paper's
    renamed = frames["scores"].replace({"benchmark": {"easy": "math-500", "hard": "aime24"}})
    paper = table2.table(frames | {"scores": renamed}).set_index(["source", "model", "method"])
    assert paper.loc[("paper", "Qwen2.5-7B", "grpo"), "math-500 greedy"] == pytest.approx(0.788)
    assert pd.isna(paper.loc[("paper", "Qwen2.5-7B", "grpo"), "aime24 greedy"])  # theirs is avg@32


def benchmarks_of_their_own(frames):
    """The base model and KL-Cov answered one benchmark more, with 300 samples, all right."""
    scores = frames["scores"]
    more = scores[scores["method"].isin(["base", "kl-cov"]) & (scores["benchmark"] == "easy")]
    numbers = {"benchmark": "extra", "score": 1.0, "clean_score": 1.0, "samples": 300, "clean_samples": 300}
    return pd.concat([scores, more.assign(**numbers)], ignore_index=True)


def test_averages_are_over_the_benchmarks_that_all_policies_answered(frames):
    scores = averages.shared(benchmarks_of_their_own(frames)).set_index(["method", "benchmark"])
    assert scores.loc[("kl-cov", "pooled"), "score"] == pytest.approx((0.86 + 0.44) / 2)
    assert scores.loc[("base", "macro"), "score"] == pytest.approx(0.2)
    assert pd.isna(scores.loc[("kl-cov", "pooled"), "low"])
    assert scores.loc[("grpo", "pooled"), ["score", "low"]].tolist() == pytest.approx(
        [0.6, 0.55]
    )  # as it was computed


def test_policies_without_a_common_benchmark_have_no_averages(frames):
    scores = frames["scores"]
    apart = scores["benchmark"].isin(["easy", "hard"]) & (scores["method"] == "kl-cov")
    scores = scores.assign(benchmark=scores["benchmark"].where(~apart, scores["benchmark"] + "-code"))
    assert not set(averages.shared(scores)["benchmark"]) & {"pooled", "macro"}
    shown = table2.markdown(table2.table(frames | {"scores": scores}))
    assert "average" not in shown
    assert "Paper" not in shown


def test_differences_of_unlike_averages_are_left_out(frames):
    table = comparison.table(frames)
    assert {"pooled", "macro"} <= set(table["benchmark"])
    rows = frames["comparison"]
    dropped = rows[~((rows["method"] == "grpo") & (rows["benchmark"] == "hard"))]
    assert set(comparison.table(frames | {"comparison": dropped})["benchmark"]) == {"easy", "hard"}


def test_the_selection_table_compares_with_grpo_seed_by_seed(several):
    table = selection.table(several).set_index(["train_set", "method"])
    assert list(table.loc["chains"].index) == [
        "grpo",
        "clip-cov",
        "kl-cov",
        "clip-cov-0.5",
        "kl-cov-0",
        "kl-cov-old",
    ]
    row = table.loc["chains", "kl-cov"]
    assert row[["scope", "policy", "penalty"]].tolist() == ["minibatch", "current", "abs"]
    assert (row["fraction"], row["coefficient"], row["realised"]) == pytest.approx((0.03, 2.0, 0.019))
    assert table.loc[("chains", "clip-cov-0.5"), "fraction"] == pytest.approx(0.005)
    assert table.loc[("chains", "clip-cov"), ["covariance_low", "covariance_high"]].tolist() == [1, 15]
    steps = np.arange(25)[-3:]  # the last tenth of 25 rows
    ends = {
        (method, seed): np.mean(end + (0.5 - end) * np.exp(-steps / 6))
        for method in ("grpo", "kl-cov")
        for seed in (0, 1)
        for end in [FINAL[method] * (1 + 0.1 * seed)]
    }
    assert row["entropy"] == pytest.approx((ends["kl-cov", 0] + ends["kl-cov", 1]) / 2)
    differences = [ends["kl-cov", seed] - ends["grpo", seed] for seed in (0, 1)]
    assert row["entropy_difference"] == pytest.approx(np.mean(differences))
    assert (row["entropy_difference_low"], row["entropy_difference_high"]) == pytest.approx(tuple(differences))
    assert row["entropy_difference_seeds"] == 2
    assert pd.isna(table.loc[("chains", "grpo"), "entropy_difference"])


def test_the_selection_table_does_not_compare_runs_of_other_length_or_seed(several):
    runs = several["runs"].copy()
    runs.loc[(runs["method"] == "kl-cov") & (runs["seed"] == 0), "steps"] = 7
    table = selection.table(several | {"runs": runs}).set_index(["train_set", "method"])
    assert table.loc[("chains", "kl-cov"), "entropy_difference_seeds"] == 1
    assert (
        "[" not in selection.display(table.reset_index().query("method == 'kl-cov'"))["Entropy / to GRPO"].iloc[0]
    )


def test_a_figure_is_described_by_its_runs_and_the_digests_of_its_inputs(frames, tmp_path):
    folder = tmp_path / "analysis/one"
    for kind in ("curves", "runs"):
        files.write_parquet(folder / f"{kind}.parquet", frames[kind])
    inputs = [str(folder / f"{kind}.parquet") for kind in ("curves", "runs")]
    outputs = [str(tmp_path / f"fig11.{suffix}") for suffix in ("pdf", "png", "svg", "csv", "json")]
    draw_figure("fig11", inputs, outputs, tmp_path)
    described = json.loads((tmp_path / "fig11.json").read_text())
    assert described["runs"] == sorted(frames["runs"]["run"])
    assert described["inputs"] == {f"analysis/one/{Path(path).name}": files.sha256(path) for path in inputs}
    assert (described["title"], described["caption"]) == (fig11.TITLE, fig11.CAPTION)
    assert (tmp_path / described["data"]).is_file()
    assert (tmp_path / "fig11.svg").read_text().count("<svg") == 1


def test_table2_prints_the_best_of_each_model_bold(frames):
    lines = table2.markdown(table2.table(frames)).splitlines()
    assert lines[0] == "| Model | Method | easy greedy | hard greedy | average, pooled | average, macro |"
    easy = {line.split(" | ")[1]: line.split(" | ")[2] for line in lines[2:]}
    assert [name for name, cell in easy.items() if cell.startswith("**")] == ["On-policy GRPO"]
    assert easy["On-policy GRPO"] == "**88.0** [83.0, 93.0]"
    assert easy["Base model"] == "20.0 [15.0, 25.0]"
