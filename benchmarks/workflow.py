"""The workflow around the science: parsing and planning, a run with nothing to do, what a job costs, the report.

    python benchmarks/workflow.py

The smoke experiment is run in a temporary folder, then again with nothing to do, then parts of it. `5,000 runs` is
a plan made here: smoke with 1,667 seeds of each method. Finding jobs is a dry run, of the target `training` and of
everything; it is stopped after LIMIT seconds.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import measure
from measure import Goal, Row

BIN = Path(sys.executable).parent
PYTHON = BIN / "python"
SEEDS = 1667
LIMIT = 31.0
"""Seconds after which finding the jobs of an experiment is stopped; the table then shows this number."""


def snakemake(results: Path, experiment: str | Path, *arguments: str) -> list[str | Path]:
    """A Snakemake command with the profile that `make run` has."""
    profile = measure.REPOSITORY / "workflow/profiles/local"
    given = ["--config", f"experiment={experiment}", f"results={results}"]
    return [PYTHON, "-m", "snakemake", "--profile", profile, *arguments, *given]


def many_runs(folder: Path, seeds: int) -> Path:
    """An experiment of three runs for each seed."""
    import yaml

    raw = yaml.safe_load((measure.REPOSITORY / "config/experiments/smoke.yaml").read_text())
    raw["runs"][0]["seeds"] = list(range(1, seeds + 1))
    path = folder / "many.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def planning(folder: Path, quick: bool) -> list[Row]:
    """Seconds to read an experiment, to parse the Snakefile, and to find all jobs of it."""
    from entropy_mechanism.config import experiment_path, load_experiment
    from entropy_mechanism.plan import Plan

    known = ["smoke"] if quick else ["smoke", "tiny", "tiny-full", "paper"]
    files = {name: experiment_path(name, measure.REPOSITORY / "config/experiments") for name in known}
    rows = []
    for name, path in (files | {"5,000 runs": many_runs(folder, 3 if quick else SEEDS)}).items():
        began = time.perf_counter()
        runs = len(Plan(load_experiment(path)).runs)
        planned = time.perf_counter() - began
        parsed = measure.wall_seconds(snakemake(folder, path, "--list-rules"))
        found = {
            f"{column}, s": measure.wall_seconds(
                snakemake(folder, path, target, "--dry-run", "--quiet", "all"), limit=LIMIT
            )
            for column, target in (("trainings", "training"), ("all jobs", "all"))
        }
        rows.append({"experiment": name, "runs": runs, "plan, s": planned, "parse, s": parsed, **found})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and write the JSON file."""
    options, began = measure.options(__doc__), time.time()
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # jobs say `python`
    os.environ["OMP_NUM_THREADS"] = "1"
    help_seconds = measure.wall_seconds(
        [PYTHON, "-m", "entropy_mechanism", "--help"], times=3 if options.quick else 7
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plans = planning(folder, options.quick)
        results = folder / "results"
        smoke = measure.wall_seconds(snakemake(results, "smoke"))
        nothing = measure.wall_seconds(snakemake(results, "smoke"), times=1 if options.quick else 3)
        curves = snakemake(results, "smoke", "-R", "collect_curves", "--until", "collect_curves", "--cores", "1")
        job = (measure.wall_seconds(curves) - nothing) / 3  # one for each run
        measure.wall_seconds(snakemake(results, "smoke"))  # what follows from the curves
        report = measure.wall_seconds(snakemake(results, "smoke", "-R", "report")) - nothing
    rows: list[Row] = [
        {"what": "entropy-mechanism --help", "seconds": help_seconds},
        {"what": "smoke, everything", "seconds": smoke},
        {"what": "smoke, nothing to do", "seconds": nothing},
        {"what": "a job that loads no model (collect_curves)", "seconds": job},
        {"what": "the report of smoke", "seconds": report},
    ]
    by_name = {row["experiment"]: row for row in plans}
    goals = [
        Goal("entropy-mechanism --help", help_seconds, 0.3, "s"),
        Goal("smoke, everything", smoke, 120, "s"),
        Goal("a run with nothing to do", nothing, 5, "s"),
        Goal("a job that loads no model", job, 2, "s"),
    ]
    if not options.quick:
        goals.append(Goal("planning paper", by_name["paper"]["all jobs, s"], 5, "s"))
        goals.append(Goal("planning 5,000 trainings", by_name["5,000 runs"]["trainings, s"], 30, "s"))
        goals.append(
            Goal("planning 5,000 runs and all that follows", by_name["5,000 runs"]["all jobs, s"], 30, "s")
        )
    measure.write("workflow", options.results, began, {"Planning": plans, "Running": rows}, goals)


if __name__ == "__main__":
    main()
