"""What the report shows of a figure or table depends on the files on disk, never on older ones."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_report import PNG, SVG

from entropy_mechanism.config import load_experiment
from entropy_mechanism.figures import inputs, registry
from entropy_mechanism.paths import FIXED, RUN_ANALYSES, Paths
from entropy_mechanism.plan import Plan
from entropy_mechanism.stages.report import _Item


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def folder(tmp_path):
    """A figure and a table that were made from one analysis file."""
    source = tmp_path / "analysis/run/law.parquet"
    source.parent.mkdir(parents=True)
    pd.DataFrame({"run": ["r"]}).to_parquet(source)
    for name, kind, content in (
        ("fig01", "figures", "panel,y\nlaw,1\n"),
        ("table1", "tables", "top_fraction,paper_qwen2.5_7b\n1.0,0.003\n"),
    ):
        place = tmp_path / kind / name
        place.parent.mkdir()
        place.with_suffix(".csv").write_text(content)
        described = {"name": name, "title": "Title", "caption": "Caption.", "runs": ["r"]}
        described["inputs"] = {"../analysis/run/law.parquet": digest(source)}
        place.with_suffix(".json").write_text(json.dumps(described))
    (tmp_path / "figures/fig01.png").write_bytes(PNG)
    (tmp_path / "figures/fig01.pdf").write_bytes(b"%PDF")
    return tmp_path


def item(folder, name, read=None):
    kind = "figures" if name.startswith("fig") else "tables"
    return _Item(folder / kind / f"{name}.json", folder / "report", read or {})


def source(folder):
    return folder / "analysis/run/law.parquet"


def test_a_figure_is_shown_with_its_files_in_svg_where_there_is_one(folder):
    found = item(folder, "fig01").figure()
    assert (found.image, found.note, found.runs) == (PNG, "", ("r",))
    assert found.links == {"data (CSV)": "../figures/fig01.csv", "PDF": "../figures/fig01.pdf"}
    (folder / "figures/fig01.svg").write_bytes(SVG)
    assert item(folder, "fig01").figure().image == SVG
    table = item(folder, "table1").table()
    assert table.frame.shape == (1, 2)
    assert table.links == {"CSV": "../tables/table1.csv"}


def test_nothing_is_shown_that_is_older_than_its_inputs(folder):
    pd.DataFrame({"run": ["other"]}).to_parquet(source(folder))
    figure, table = item(folder, "fig01").figure(), item(folder, "table1").table()
    assert figure.image is None
    assert table.frame is None
    for note in (figure.note, table.note):
        assert note.startswith("out of date")
        assert "law.parquet" in note


def test_nothing_is_shown_that_is_older_than_what_the_report_read(folder):
    read = {source(folder).as_posix(): "0" * 64}
    assert "out of date" in item(folder, "fig01", read).figure().note
    assert "out of date" in item(folder, "table1", read).table().note
    same = {source(folder).as_posix(): digest(source(folder))}
    assert item(folder, "fig01", same).figure().note == ""


def test_a_figure_whose_inputs_are_gone_says_so(folder):
    source(folder).unlink()
    found = item(folder, "fig01").figure()
    assert found.image is None
    assert "no longer there" in found.note


def test_a_figure_without_data_says_so(folder):
    for content in ("panel,y\n", ""):
        (folder / "figures/fig01.csv").write_text(content)
        found = item(folder, "fig01").figure()
        assert found.image is None
        assert "nothing to draw" in found.note


def test_what_was_not_made_says_so_under_its_title(folder):
    for path in (*(folder / "figures").iterdir(), *(folder / "tables").iterdir()):
        path.unlink()
    figure, table = item(folder, "fig01").figure(), item(folder, "table1").table()
    assert figure.image is None
    assert table.frame is None
    assert "was not made" in figure.note
    assert "was not made" in table.note
    assert figure.title == registry.load("fig01").TITLE


@pytest.mark.parametrize("name", ["smoke", "tiny"])
def test_the_report_reads_every_analysis_of_every_run(name):
    experiment = Path(__file__).parents[2] / f"config/experiments/{name}.yaml"
    plan, paths = Plan(load_experiment(experiment)), Paths(Path("results"), name)
    found = inputs.frames(plan, paths)
    assert len(set(found)) == len(found)
    assert {paths.analysis(kind, run) for run in plan.runs for kind in RUN_ANALYSES} <= set(found)
    assert {paths.fixed(kind) for kind in FIXED} <= set(found)
    assert {paths.scores(policy) for policy in plan.policies} <= set(found)
    for item_name in (*plan.experiment.figures, *plan.experiment.tables):
        kinds = {path.rsplit("/", 1)[1].removesuffix(".parquet") for path in found}
        assert set(registry.entry(item_name).inputs) <= kinds
    assert [path.rsplit("/", 1)[1] for path in inputs.descriptions(plan, paths)] == [
        f"{item_name}.json" for item_name in (*plan.experiment.figures, *plan.experiment.tables)
    ]


def test_planning_the_report_imports_no_heavy_package():
    code = "import sys, entropy_mechanism.figures.inputs; assert not {'matplotlib', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
