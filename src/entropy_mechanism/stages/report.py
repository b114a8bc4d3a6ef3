"""Figures, tables, analyses and records -> one self-contained page."""

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from entropy_mechanism import files, tracking
from entropy_mechanism.config import experiment_name, load_experiment
from entropy_mechanism.figures import inputs, registry
from entropy_mechanism.paths import Paths
from entropy_mechanism.plan import Plan
from entropy_mechanism.report import (
    FigureEntry,
    Report,
    Results,
    TableEntry,
    beside,
    build,
    comparison,
    headlines,
    judge_all,
    summary,
)
from entropy_mechanism.screen import CAME_OUT
from entropy_mechanism.tracking.provenance import git_state

SHOWN_PACKAGES = ("torch", "transformers", "snakemake", "mlflow", "math-verify", "pandas", "scipy")
FIGURE_LINKS = {"data (CSV)": ".csv", "SVG": ".svg", "PDF": ".pdf"}
TABLE_LINKS = {"CSV": ".csv", "Markdown": ".md"}


def report(
    experiment: Path, tracking_uri: str | None, output: Path, results: Path, compare_with: Path | None = None
) -> None:
    """Build the page from the files of `<results>/<name>`, where output is `<results>/<name>/report/index.html`.

    `compare_with` is the file of another experiment, whose analyses stand in `<results>` too.
    Records are sent to MLflow first, so that the page can name the runs there. A figure or table that is not there
    is said to be missing; missing analyses are an error.
    """
    name = output.parent.parent.name
    folder = output.parent.parent.parent
    compared = inputs.finished(compare_with, experiment, folder) if compare_with else []
    plan, paths = Plan(load_experiment(experiment)), Paths(folder, name)
    registry.adopt(plan.experiment.figures)
    frames = inputs.frames(plan, paths)
    items = [Path(path) for path in inputs.descriptions(plan, paths)]
    made = [path for path in items if path.is_file()]
    with tracking.stage("report", name, results=results, inputs=[*made, *frames, *compared], outputs=[output]):
        read = {os.path.abspath(path): files.sha256(path) for path in frames}
        tables = files.read_frames(frames)
        entries = [_Item(path, output.parent, read) for path in items]
        sent = tracking.sync(results, tracking_uri)
        if sent.error:
            print(f"the page cannot name every MLflow run: {sent}")
        own, found = _results(name, plan, tables), headlines(tables)
        other = None
        if compare_with:
            other = _results(compare_with.stem, Plan(load_experiment(compare_with)), files.read_frames(compared))
        page = Report(
            experiment=f"{name}: {plan.experiment.title}",
            created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            revision=_revision(git_state()),
            claims=own.claims,
            headlines=found,
            figures=tuple(item.figure() for item in entries if item.is_figure),
            tables=tuple(item.table() for item in entries if not item.is_figure),
            runs=_runs(tables, name, results),
            run_link=_run_link(results),
            comparison=comparison(tables),
            beside=beside(own, other) if other else None,
            commands=_commands(experiment, compare_with, tracking_uri or tracking.default_tracking_uri(results)),
            environment={"Python": platform.python_version(), "Machine": platform.machine()}
            | {package: version(package) for package in SHOWN_PACKAGES},
        )
        files.write_text(output, build(page))
        print(f"{CAME_OUT}{name}, {plan.experiment.title}:")
        print("\n".join(found.sentences))
        verdicts = ", ".join(f"{verdict} {count}" for verdict, count in summary(own.claims))
        print(f"Claims of the paper: {verdicts}.")


def _commands(experiment: Path, compare_with: Path | None, tracking_uri: str) -> tuple[str, str]:
    """What makes the page again, and what shows its runs."""
    other = f" compare_with={experiment_name(compare_with)}" if compare_with else ""
    return (
        f"snakemake --config experiment={experiment_name(experiment)}{other}",
        f"mlflow ui --backend-store-uri {tracking_uri}",
    )


def _results(name: str, plan: Plan, frames: dict[str, pd.DataFrame]) -> Results:
    claims = judge_all(frames, {item: {run.name for run in plan.shown(item)} for item in plan.items})
    return Results(name, frames, claims, plan.experiment.model_dump(mode="json"))


class _Item:
    """A figure or table as its stage left it; `read` are the digests of what the report itself is made from."""

    def __init__(self, description: Path, page_folder: Path, read: Mapping[str, str]) -> None:
        self.path = description
        self.name = description.stem
        self.description: dict[str, Any] = files.read_json(description) if description.is_file() else {}
        self.is_figure = self.name not in registry.TABLES
        self.page_folder = page_folder
        self.read = read

    def _links(self, suffixes: Mapping[str, str]) -> dict[str, str]:
        found = {name: self.path.with_suffix(suffix) for name, suffix in suffixes.items()}
        root = self.page_folder.parent.resolve()
        return {
            name: f"../{path.resolve().relative_to(root).as_posix()}"
            for name, path in found.items()
            if path.is_file()
        }

    def _missing(self) -> str:
        """Why this cannot be shown: it is not there, or older than its inputs, or than those of the report."""
        if not self.description:
            return f"{self.path} was not made"
        for relative, digest in self.description["inputs"].items():
            path = os.path.abspath(self.path.parent / relative)
            found = self.read.get(path) or (files.sha256(path) if Path(path).is_file() else None)
            if found is None:
                return f"out of date, since {os.path.relpath(path)}, from which it was made, is no longer there"
            if found != digest:
                return f"out of date, since it was made from another {os.path.relpath(path)} than there is now"
        return ""

    def _told(self) -> dict[str, Any]:
        """Title and caption; those of its module where the description is missing."""
        if self.description:
            return {name: self.description[name] for name in ("title", "caption")}
        module = registry.load(self.name)
        return {"title": module.TITLE, "caption": module.CAPTION}

    def figure(self) -> FigureEntry:
        """The figure, or a note in its place when there is nothing to show or it is older than its inputs."""
        pictures = (self.path.with_suffix(suffix) for suffix in (".svg", ".png"))
        picture = next((path for path in pictures if path.is_file()), None)
        drawn = self.path.with_suffix(".csv")
        note = self._missing()
        if not note and not (drawn.is_file() and _has_rows(drawn)):
            note = "there is nothing to draw; its inputs are missing or have no rows for it."
        return FigureEntry(
            name=self.name,
            image=None if note or picture is None else picture.read_bytes(),
            links=self._links(FIGURE_LINKS),
            note=note,
            runs=tuple(self.description.get("runs", ())),
            **self._told(),
        )

    def table(self) -> TableEntry:
        """The table as its module shows it, or a note in its place."""
        content = self.path.with_suffix(".csv")
        note = self._missing() or ("" if content.is_file() else f"{content} was not found")
        return TableEntry(
            name=self.name,
            frame=None if note else registry.load(self.name).display(pd.read_csv(content)),
            links=self._links(TABLE_LINKS),
            note=note,
            **self._told(),
        )


def _has_rows(table: Path) -> bool:
    with table.open(encoding="utf-8") as lines:
        return sum(1 for _, line in zip(range(2), lines, strict=False) if line.strip()) > 1


def _runs(tables: dict[str, pd.DataFrame], experiment: str, results: Path) -> pd.DataFrame:
    """One row per run with where it ended, its fingerprint and its MLflow run."""
    law = tables["law"].set_index("run")
    shown = tables["runs"].copy()
    shown["entropy"] = shown["run"].map(law["entropy_last"])
    shown["accuracy"] = shown["run"].map(law["accuracy_last"])
    ids = tracking.run_ids(results)
    trained = {
        record.key: record
        for record in tracking.latest_records(results, "train")
        if any(file.path == f"{experiment}/runs/{record.key}/manifest.json" for file in record.outputs)
    }
    known = [trained.get(run) for run in shown["run"]]
    shown["mlflow_run"] = [ids.get(record.record_id, ("", ""))[1] if record else "" for record in known]
    shown["fingerprint"] = [record.params.get("fingerprint", "") if record else "" for record in known]
    return shown


def _run_link(results: Path) -> str:
    """Address of a run in `mlflow ui` as it starts by default; empty before anything was sent."""
    experiments = {experiment for experiment, _ in tracking.run_ids(results).values()}
    return f"http://127.0.0.1:5000/#/experiments/{experiments.pop()}/runs/{{}}" if len(experiments) == 1 else ""


def _revision(git: dict) -> str:
    return f"{git.get('revision') or 'unknown'}{' with uncommitted changes' if git.get('dirty') else ''}"
