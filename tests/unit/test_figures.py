"""Figures and tables show the right numbers, in one look, with the same bytes for the same data."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from figure_frames import FINAL, METHODS, A, B, empty, make_frames

from entropy_mechanism.figures import (
    fig01,
    fig02,
    fig03,
    fig05,
    fig08,
    fig11,
    published,
    registry,
    style,
    table1,
    table2,
)


@pytest.fixture(scope="module")
def frames():
    return make_frames()


@pytest.fixture(scope="module")
def many():
    models = ("tiny-s", "tiny-l", "qwen2.5-7b", "mistral-24b")
    return make_frames(models, seeds=(0, 1), methods=("grpo", "kl-cov"), steps=24)


@pytest.mark.parametrize("name", registry.FIGURES)
def test_figures_draw_without_warnings(name, frames, many):
    module = registry.load(name)
    for case in (frames, many, empty(frames)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure = module.draw({key: case[key] for key in module.INPUTS})
            figure.draw_without_rendering()
        width = figure.get_size_inches()[0]
        assert width in (style.ONE_COLUMN, style.TWO_COLUMNS)


@pytest.mark.parametrize("name", registry.FIGURES)
def test_a_figure_without_data_says_so(name, frames):
    module = registry.load(name)
    assert module.data(empty(frames)).empty
    texts = [text.get_text() for axes in module.draw(empty(frames)).axes for text in axes.texts]
    assert texts
    assert all(text.strip() for text in texts)


@pytest.mark.parametrize("name", registry.FIGURES)
def test_same_data_gives_same_bytes(name):
    first, second = (style.render(registry.load(name).draw(make_frames()), "pdf") for _ in range(2))
    assert first == second
    assert b"CreationDate" not in first
    assert b"/FontFile2" in first  # TrueType letters inside the file
    assert b"/Type3" not in first


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
    assert style.method_look("KL_Cov") == style.METHODS["kl-cov"]
    assert style.method_look("entropy-bonus-0.01") == style.method_look("entropy-bonus-0.01")
    reserved = {style.ENTROPY_COLOUR, style.ACCURACY_COLOUR, style.COVARIANCE_COLOUR}
    assert not reserved & {look.colour for look in style.METHODS.values()}


def test_larger_models_are_darker(many):
    from matplotlib.colors import to_rgb

    shades = [sum(to_rgb(look.colour)) for look in style.size_looks(many["runs"]).values()]
    assert shades == sorted(shades, reverse=True)
    assert list(style.size_looks(many["runs"])) == ["tiny-s", "tiny-l", "qwen2.5-7b", "mistral-24b"]


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
    assert len(table) == 4 * 3
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
    table = table2.table(frames | {"scores": scores})
    assert table["hard greedy_contained"].tolist() == [40] * len(table)
    assert table["easy greedy_contained"].tolist() == [0] * len(table)
    assert table["hard greedy_clean"].to_numpy() == pytest.approx(table["hard greedy"].to_numpy() - 0.2)
    assert table["easy greedy_clean"].tolist() == table["easy greedy"].tolist()
    header = table2.markdown(table).splitlines()[0]
    assert "| hard greedy | hard greedy, clean |" in header
    assert "easy greedy, clean" not in header


def test_table2_prints_the_best_of_each_model_bold(frames):
    lines = table2.markdown(table2.table(frames)).splitlines()
    assert lines[0] == "| Model | Method | easy greedy | hard greedy | average, pooled | average, macro |"
    easy = {line.split(" | ")[1]: line.split(" | ")[2] for line in lines[2:]}
    assert [name for name, cell in easy.items() if cell.startswith("**")] == ["On-policy GRPO"]
    assert easy["On-policy GRPO"] == "**88.0** [83.0, 93.0]"
    assert easy["Base model"] == "20.0 [15.0, 25.0]"
