"""Figures and tables have one look, are drawn whatever was measured, and give the same bytes for the same data."""

import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_frames import empty

from entropy_mechanism import files
from entropy_mechanism.config import ConfigError
from entropy_mechanism.figures import fig02, fig11, published, registry, style
from entropy_mechanism.stages.figure import figure as draw_figure

DRAWN = [*(f"fig{number:02}" for number in range(1, 15)), "table1", "table2", "comparison", "selection"]


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
        figure = module.draw({key: given[key] for key in registry.entry(name).inputs if key in given})
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
        table = module.table({key: given[key] for key in registry.entry(name).inputs if key in given})
        text = style.markdown(module.display(table))
        read = style.markdown(module.display(pd.read_csv(io.StringIO(table.to_csv(index=False)))))
    assert text.strip()
    assert read.strip()  # the report reads the CSV file


@pytest.mark.parametrize("name", [name for name in registry.FIGURES if name in DRAWN])
def test_many_models_seeds_and_sets_are_drawn(name, many):
    module = registry.load(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.draw({key: many[key] for key in registry.entry(name).inputs}).draw_without_rendering()


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
    assert module.TITLE
    assert module.CAPTION.endswith(".")
    wanted = ("data", "draw") if name in registry.FIGURES else ("table", "display")
    assert all(callable(getattr(module, function)) for function in wanted)


def test_planning_imports_neither_matplotlib_nor_pandas():
    code = "import sys, entropy_mechanism.figures.registry; assert not {'matplotlib', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"fig99.*fig01"):
        registry.load("fig99")
    with pytest.raises(KeyError, match=r"nothing.*table1"):
        published.load("nothing")


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
