"""Figures, tables, analyses and records -> one self-contained page."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from entropy_mechanism import files, tracking
from entropy_mechanism.config import load_experiment
from entropy_mechanism.report import FigureEntry, Report, TableEntry, build, comparison, headlines
from entropy_mechanism.stages.figure import read_frames
from entropy_mechanism.tracking.provenance import git_state

SHOWN_PACKAGES = ("torch", "transformers", "snakemake", "mlflow", "math-verify", "pandas", "scipy")


def report(
    experiment: Path,
    items: list[str],
    frames: list[str],
    tracking_uri: str | None,
    output: Path,
    results: Path,
) -> None:
    """Build the page. Records are sent to MLflow first, so that the page can name the runs there."""
    name = output.parent.parent.name
    with tracking.stage("report", name, results=results, inputs=[*items, *frames], outputs=[output]):
        title = load_experiment(experiment).title
        tables = read_frames(frames)
        entries = [_Item(Path(path), output.parent) for path in items]
        sent = tracking.sync(results, tracking_uri)
        if sent.error:
            print(f"the page cannot name every MLflow run: {sent}")
        git = git_state()
        page = build(
            Report(
                experiment=f"{name}: {title}",
                created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
                revision=_revision(git),
                headlines=headlines(tables),
                figures=tuple(item.figure() for item in entries if item.is_figure),
                tables=tuple(item.table() for item in entries if not item.is_figure),
                runs=_runs(tables, name, results),
                run_link=_run_link(results),
                comparison=comparison(tables),
                commands=(
                    f"snakemake --config experiment={name}",
                    f"mlflow ui --backend-store-uri {tracking_uri or tracking.default_tracking_uri(results)}",
                ),
                environment={"Python": platform.python_version(), "Machine": platform.machine()}
                | {package: version(package) for package in SHOWN_PACKAGES},
            )
        )
        files.write_text(output, page)
        for sentence in (entry.verdict for entry in headlines(tables).methods):
            print(sentence)
        print(f"report: {output}")


class _Item:
    """A figure or table as its stage left it."""

    def __init__(self, description: Path, page_folder: Path) -> None:
        self.path = description
        self.description = files.read_json(description)
        self.is_figure = description.with_suffix(".png").exists()
        self.page_folder = page_folder

    def _link(self, suffix: str) -> str:
        return self.path.with_suffix(suffix).resolve().relative_to(self.page_folder.parent.resolve()).as_posix()

    def _stale(self) -> list[str]:
        """Inputs that are no longer what the figure was drawn from."""
        recorded = self.description["inputs"]
        return [
            path for path, digest in recorded.items() if not Path(path).is_file() or files.sha256(path) != digest
        ]

    def figure(self) -> FigureEntry:
        """The figure, or a note in its place when it is older than its inputs."""
        stale = self._stale()
        return FigureEntry(
            name=self.description["name"],
            title=self.description["title"],
            caption=self.description["caption"],
            png=None if stale else self.path.with_suffix(".png").read_bytes(),
            csv=f"../{self._link('.csv')}",
            pdf=f"../{self._link('.pdf')}",
            note=f"drawn from other data than {stale[0]} holds now" if stale else "",
        )

    def table(self) -> TableEntry:
        """The table as its module shows it."""
        from entropy_mechanism.figures import registry

        frame = pd.read_csv(self.path.with_suffix(".csv"))
        return TableEntry(
            name=self.description["name"],
            title=self.description["title"],
            caption=self.description["caption"],
            frame=registry.load(self.description["name"]).display(frame),
            csv=f"../{self._link('.csv')}",
            md=f"../{self._link('.md')}",
        )


def _runs(tables: dict[str, pd.DataFrame], experiment: str, results: Path) -> pd.DataFrame:
    """One row per run with where it ended and its MLflow run."""
    law = tables["law"].set_index("run")
    shown = tables["runs"].copy()
    shown["entropy"] = shown["run"].map(law["entropy_last"])
    shown["accuracy"] = shown["run"].map(law["accuracy_last"])
    ids = tracking.run_ids(results)
    trained = {
        record.key: record.record_id
        for record in tracking.latest_records(results, "train")
        if any(file.path == f"{experiment}/runs/{record.key}/manifest.json" for file in record.outputs)
    }
    shown["mlflow_run"] = [ids.get(trained.get(run, ""), ("", ""))[1] for run in shown["run"]]
    return shown


def _run_link(results: Path) -> str:
    """Address of a run in `mlflow ui` as it starts by default; empty before anything was sent."""
    experiments = {experiment for experiment, _ in tracking.run_ids(results).values()}
    return f"http://127.0.0.1:5000/#/experiments/{experiments.pop()}/runs/{{}}" if len(experiments) == 1 else ""


def _revision(git: dict) -> str:
    return f"{git.get('revision') or 'unknown'}{' with uncommitted changes' if git.get('dirty') else ''}"
