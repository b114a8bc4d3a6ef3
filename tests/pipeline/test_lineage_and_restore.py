"""Where a figure of the smoke experiment comes from, and its results on another machine, from MLflow alone."""

import hashlib
import json
import os
import re
import shutil

import pytest
from mlflow_server import Server
from repository import Workspace, copy_repository

SMOKE = ("--config", "experiment=smoke", "results=elsewhere")
"""Restored results stand under another path than those that were sent."""
SHOWN = [f"nano--train--{method}--s1" for method in ("grpo", "kl-cov")]
"""Runs of Fig 11."""
GRPO = SHOWN[0]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lineage(workspace, *arguments, results="results"):
    (value,) = json.loads(workspace.cli("lineage", *arguments, "--json", "--results", results).stdout)
    return value


def named(value):
    return {(item["stage"], item["key"]) for item in value["executions"].values()}


def files(results):
    """Path -> digest of what restore is to bring back: outputs, records and what runs leave in the store."""
    left_out = re.compile(
        r"mlflow\.db.*|mlartifacts/.*|README\.md|smoke/logs/.*|store/[0-9a-f]+/(checkpoints/.*|lock)|records/(mlflow\.json|\.lock)"
    )
    paths = {path.relative_to(results).as_posix(): path for path in results.rglob("*") if path.is_file()}
    return {name: digest(path) for name, path in paths.items() if not left_out.fullmatch(name)}


@pytest.fixture(scope="module")
def restored(smoke, tmp_path_factory):
    """Another copy of the repository, with the results that MLflow holds."""
    workspace = Workspace(copy_repository(tmp_path_factory.mktemp("restored")))
    uri = f"sqlite:///{smoke.results}/mlflow.db"
    said = workspace.cli("restore", "--tracking-uri", uri, "--results", "elsewhere").stdout
    assert re.search(
        r"restore: \d+ records, \d+ files placed .* 0 were there, 0 not in MLflow, 0 not as rec", said
    )
    return workspace


def test_lineage_names_every_ancestor_of_fig_11_and_the_base_of_each_run(smoke):
    value = lineage(smoke, "results/smoke/figures/fig11.pdf")
    assert named(value) == {
        ("figure", "fig11"),
        *((stage, run) for stage in ("collect_curves", "train", "resolve") for run in SHOWN),
        ("make_model", "nano"),
        ("prepare", "train"),
        ("prepare", "validation"),
    }
    base = json.loads((smoke.results / "smoke/models/nano/manifest.json").read_text())
    makers = {name for name, item in value["executions"].items() if item["stage"] == "make_model"}
    for item in value["executions"].values():
        assert item["mlflow"]["run_id"]
        if item["stage"] == "train":
            assert item["about"]["model"] == "nano"
            assert makers <= {link["execution"] for link in item["links"]}
        if item["stage"] == "make_model":
            assert item["about"]["weights"] == {"model.safetensors": base["digests"]["model.safetensors"]}
    assert not [link for item in value["executions"].values() for link in item["links"] if link["note"]]
    text = smoke.cli("lineage", "results/smoke/figures/fig11.pdf", "--results", "results").stdout
    assert text.startswith(
        f"smoke/figures/fig11.pdf (sha256 {digest(smoke.results / 'smoke/figures/fig11.pdf')[:12]})"
    )
    assert len(re.findall(r"^ +train nano--train--\S+: base model nano, data set train,", text, re.M)) == len(
        SHOWN
    )


def test_lineage_leads_back_from_a_data_set_to_the_figures(smoke):
    value = lineage(smoke, "results/smoke/data/train.parquet", "--descendants")
    assert {("train", GRPO), ("figure", "fig11"), ("table", "table2"), ("report", "smoke")} <= named(value)
    held_out = lineage(smoke, "results/smoke/data/hard.parquet", "--descendants")
    assert {stage for stage, _ in named(held_out)} >= {"sample", "grade", "score", "decontaminate", "report"}
    assert not {"train", "fit_law", "make_model"} & {stage for stage, _ in named(held_out)}


def test_every_input_of_the_smoke_experiment_was_made_by_a_recorded_execution(smoke):
    value = lineage(smoke, "results/smoke/report/index.html")
    links = [link for item in value["executions"].values() for link in item["links"]]
    assert len(links) > 50
    assert [link for link in links if link["execution"] is None] == []


def test_restored_results_are_the_same_and_snakemake_has_nothing_to_do(smoke, restored):
    assert files(restored.root / "elsewhere") == files(smoke.results)
    assert "Nothing to be done" in restored.snakemake("-n", *SMOKE).stdout
    assert "audit: 0 findings" in restored.cli("audit", "--results", "elsewhere").stdout
    found = lineage(restored, "fig11", results="elsewhere")
    assert named(found) == named(lineage(smoke, "fig11"))
    for item in found["executions"].values():
        assert item["mlflow"]["run_id"]


def test_touching_a_restored_data_set_plans_what_follows_and_nothing_else(restored):
    path = restored.root / "elsewhere/smoke/data/easy.parquet"
    stat = path.stat()
    try:
        os.utime(path)
        planned = restored.planned(*SMOKE)
        assert (planned["decontaminate"], planned["sample"], planned["grade"], planned["score"]) == (1, 4, 12, 4)
        assert planned["report"] == 1
        assert not {"prepare", "make_model", "train", "fit_law", "entropy_dynamics"} & planned.keys()
    finally:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_restored_run_is_a_hit_in_the_store_whose_lineage_leads_to_the_training(smoke, tmp_path):
    workspace = Workspace(copy_repository(tmp_path))
    uri = f"sqlite:///{smoke.results}/mlflow.db"
    command = ("restore", "--tracking-uri", uri, "--results", "elsewhere", "--workflow-experiment", "smoke")
    workspace.cli(*command)
    manifest = f"elsewhere/smoke/runs/{GRPO}/manifest.json"
    samples = f"elsewhere/smoke/evaluation/{GRPO}/easy/samples.parquet"
    before = [digest(workspace.root / path) for path in (manifest, samples)]
    (workspace.root / samples).unlink()
    output = workspace.snakemake(manifest, samples, "-R", "train", *SMOKE).stdout
    assert "nothing to train" in output
    assert [digest(workspace.root / path) for path in (manifest, samples)] == before
    for stage, path in (("train", manifest), ("sample", samples)):
        found = lineage(workspace, path, results="elsewhere")["executions"]
        again, first = sorted((name for name, item in found.items() if item["stage"] == stage), reverse=True)
        assert first in {link["execution"] for link in found[again]["links"]}
        assert found[first]["key"] == found[again]["key"] == GRPO
        assert (smoke.results / f"records/{stage}/{first}.json").is_file()
        assert not (smoke.results / f"records/{stage}/{again}.json").exists()


def test_the_report_made_anew_elsewhere_shows_every_figure(restored, tmp_path):
    """In a copy, since the report is recorded."""
    shutil.copytree(restored.root / "elsewhere", tmp_path / "results")
    config = ("--experiment", "config/experiments/smoke.yaml")
    page = tmp_path / "results/smoke/report/index.html"
    page.unlink()
    restored.cli("report", *config, "--output", str(page), "--results", str(tmp_path / "results"))
    figures = list((tmp_path / "results/smoke/figures").glob("*.svg"))
    assert page.read_text().count("data:image/svg+xml") == len(figures) > 5
    assert "out of date" not in page.read_text()


@pytest.fixture
def server(tmp_path):
    """A real `mlflow server` that keeps the artifacts itself; yields its address."""
    server = Server(tmp_path / "server")
    server.start()
    try:
        yield server.wait().address
    finally:
        server.kill()


def test_results_come_back_from_a_server_that_keeps_the_artifacts(smoke, server, tmp_path):
    """Of the first stages only, since the way is the same for all."""
    stages = {"prepare", "make_model", "resolve"}
    source = tmp_path / "source"
    shutil.copytree(
        smoke.results, source, ignore=shutil.ignore_patterns("mlartifacts", "mlflow.*", "store", "logs")
    )
    for folder in (source / "records").iterdir():
        if folder.is_dir() and folder.name not in stages:
            shutil.rmtree(folder)
    sent = smoke.cli("track", "sync", "--tracking-uri", server, "--results", str(source)).stdout
    assert ", 0 pending" in sent
    target = tmp_path / "target"
    said = smoke.cli("restore", "--tracking-uri", server, "--results", str(target)).stdout
    assert "0 not in MLflow, 0 not as recorded" in said
    expected = {name: value for name, value in files(source).items() if name.startswith("records/")}
    for folder in ("data", "models/nano"):
        expected |= {
            f"smoke/{folder}/{path.name}": digest(path)
            for path in (source / "smoke" / folder).iterdir()
            if path.is_file()
        }
    expected |= {
        path.relative_to(source).as_posix(): digest(path) for path in source.glob("smoke/runs/*/run.yaml")
    }
    assert files(target) == expected
    assert "restore: " in smoke.cli("restore", "--tracking-uri", server, "--results", str(target)).stdout
    assert (
        "0 records sent" in smoke.cli("track", "sync", "--tracking-uri", server, "--results", str(target)).stdout
    )
