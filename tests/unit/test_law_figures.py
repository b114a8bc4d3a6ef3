"""The ceiling figure and the tables of forms, forecasts, common curve and ceiling test."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import curves_of, run_points, training

from entropy_mechanism.analysis.ceiling import ceiling_test as study_of_ceiling
from entropy_mechanism.analysis.common_law import common_law as study_of_methods
from entropy_mechanism.analysis.forecasting import forecast_runs
from entropy_mechanism.analysis.forms import FORMS, compare_forms
from entropy_mechanism.figures import ceiling, ceiling_test, common_law, forecasts, forms, style
from entropy_mechanism.settings import Analysis
from entropy_mechanism.stages.published import analyse_published

TABLES = {"forms": forms, "forecasts": forecasts, "common_law": common_law, "ceiling_test": ceiling_test}


@pytest.fixture(scope="module")
def frames():
    random, runs = np.random.default_rng(1), []
    for method, shift, last in (("grpo", 0.0, 0.02), ("clip-cov", 0.2, 0.1), ("kl-cov", 0.0, 0.15)):
        for seed in (1, 2):
            entropy, accuracy = training(24, 0.0, random, last=last, spread=0.004)
            runs.append(run_points(entropy, accuracy + shift * np.linspace(0, 1, 24), method, seed))
    curves = curves_of(*runs)
    paper = analyse_published(Analysis(resamples=60))
    sizes = curves[["run", "model", "train_set", "method", "seed"]].drop_duplicates()
    return {
        "curves": curves,
        "runs": sizes.assign(non_embedding_parameters=1000, task="math"),
        "forms": compare_forms(curves),
        "forecasts": forecast_runs(curves, (0.15, 0.5))[0],
        "common_law": study_of_methods(curves, 0, 99),
        "ceiling": study_of_ceiling(curves, 0, 99),
        **{name: frame for name, frame in paper.items() if name != "published_law"},
    }


def without(frames, *wanted):
    """The same frames with no rows in those `wanted`."""
    return {name: frame.iloc[:0] if name in wanted else frame for name, frame in frames.items()}


def test_dots_curve_and_ceiling_are_those_of_the_study(frames):
    drawn = style.by(ceiling.data(frames), source="ours")
    assert set(drawn["panel"]) == {"m"}
    row = frames["ceiling"].iloc[0]
    curve = style.by(drawn, mark="fit")
    np.testing.assert_allclose(curve["y"], 100 * (row["baseline_b"] - row["baseline_a"] * np.exp(curve["x"])))
    level = style.by(drawn, mark="ceiling")
    assert level["y"].tolist() == pytest.approx([100 * row["baseline_ceiling"]] * 2)
    assert level["low"].iloc[0] < level["y"].iloc[0] < level["high"].iloc[0]
    for run, mine in frames["curves"].groupby("run"):
        late = style.by(drawn, run=run, mark="last quarter")
        assert late["y"].tolist() == pytest.approx((100 * mine["validation/accuracy"].iloc[-6:]).tolist())
        assert len(style.by(drawn, run=run, mark="dot")) == 18


def test_the_legend_gives_the_verdict_and_the_last_panels_are_the_papers(frames):
    figure = ceiling.draw(frames)
    assert [axes.get_title() for axes in figure.axes] == ["m", "Paper, Qwen2.5-7B", "Paper, Qwen2.5-32B"]
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels[0] == "GRPO"
    assert "Clip-Cov: above ceiling" in labels
    divided = frames["ceiling"].assign(verdict=["above curve", "on curve", "on curve", "on curve"])
    labels = [
        text.get_text() for text in ceiling.draw({**frames, "ceiling": divided}).axes[0].get_legend().get_texts()
    ]
    assert labels[1:] == ["Clip-Cov: above curve (1 of 2)", "KL-Cov: on curve"]


@pytest.mark.parametrize("missing", [(), ("ceiling",), ("curves", "ceiling", "runs"), ("published_ceiling",)])
def test_the_figure_says_what_is_missing(frames, missing):
    figure = ceiling.draw(without(frames, *missing))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any("No intervention" in text for text in texts) == ("ceiling" in missing)
    style.render(figure, "png")
    ceiling.draw({name: frame for name, frame in frames.items() if name not in missing})


@pytest.mark.parametrize("name", TABLES)
def test_tables_stand_what_is_missing_and_come_back_from_their_csv(frames, name):
    module = TABLES[name]
    for given in (frames, without(frames, *frames), {}):
        table = module.table(given)
        back = pd.read_csv(io.StringIO(table.to_csv(index=False)))
        assert module.display(back).to_dict("list") == module.display(table).to_dict("list")
        assert style.markdown(module.display(table)).startswith("No run" if table.empty else "| ")
    assert len(module.table(frames)) > len(module.table(without(frames, *frames)))


def test_the_table_of_forms_shows_the_mean_over_seeds_and_the_papers_baselines(frames):
    table = forms.table(frames)
    ours = table[(table["source"] == "ours") & (table["method"] == "grpo")].set_index("form")
    assert ours.index.tolist() == list(FORMS)
    mine = frames["forms"][(frames["forms"]["method"] == "grpo") & (frames["forms"]["form"] == "log")]
    assert ours.loc["log", "blocked_rmse"] == pytest.approx(mine["blocked_rmse"].mean())
    assert ours["runs"].tolist() == [2] * 7
    assert ours["best"].sum() == 2
    shown = forms.display(table)
    assert set(shown.loc[shown["Source"] != "this experiment", "Method"]) == {"GRPO"}
    cells = shown[list(FORMS)].to_numpy().ravel()
    assert all(re.fullmatch(r"(\*\*)?(\d+\.\d|–)( \(\d+\.\d\))?(\*\*)?", cell) for cell in cells)


def test_the_table_of_forecasts_compares_predictors_on_the_same_runs(frames):
    broken = frames["forecasts"].copy()
    one = (broken["run"] == "m--t--kl-cov--s2") & (broken["predictor"] == "log-entropy")
    broken.loc[one, ["rmse", "final_error"]] = np.nan
    table = forecasts.table({**frames, "forecasts": broken})
    ours = table[table["source"] == "ours"]
    assert set(ours["runs"]) == {5}
    assert (ours.groupby(["direction", "fraction"])["best"].sum() == 5).all()
    row = ours[(ours["direction"] == "forward") & (ours["fraction"] == 0.5)].set_index("predictor")
    kept = broken[(broken["direction"] == "forward") & (broken["fraction"] == 0.5)]
    kept = kept[(kept["run"] != "m--t--kl-cov--s2") & (kept["predictor"] == "linear")]
    assert row.loc["linear", ["rmse", "median_rmse"]].tolist() == pytest.approx(
        [kept["rmse"].mean(), kept["rmse"].median()]
    )
    shown = forecasts.display(table)
    assert shown.iloc[:, 4:].apply(lambda cells: cells.str.startswith("**")).any(axis=1).all()


def test_the_table_of_the_common_curve_has_the_test_in_its_last_row(frames):
    shown = common_law.display(common_law.table(frames))
    assert shown["Curve of"].tolist() == ["GRPO", "Clip-Cov", "KL-Cov", "all together"]
    assert shown["Verdict"].tolist() == ["", "", "", "several curves"]
    assert shown["p"].iloc[0] == ""
    assert re.fullmatch(r"\d\.\d{3} \[-?\d\.\d{3}, \d\.\d{3}\]", shown["a"].iloc[0])


def test_the_table_of_the_ceiling_test_has_a_row_per_run_in_points(frames):
    table = ceiling_test.table(frames)
    assert table["source"].tolist() == ["ours"] * 4 + ["paper"] * 6
    shown = ceiling_test.display(table)
    number = float(re.match(r"[+-]\d+\.\d", shown["From curve"].iloc[0])[0])
    assert number == pytest.approx(100 * table["residual"].iloc[0], abs=0.051)
    assert shown["Verdict"].tolist()[:2] == ["above ceiling", "above ceiling"]
    assert shown["Passed at"].iloc[0].isdigit()
