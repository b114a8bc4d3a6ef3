"""Experiment -> the fully resolved configuration of one run."""

from pathlib import Path

import yaml

from entropy_mechanism import files, tracking
from entropy_mechanism.config import load_experiment
from entropy_mechanism.plan import Plan


def resolve(experiment: Path, run: str, output: Path, results: Path) -> None:
    """Write a run's `run.yaml`."""
    content = Plan(load_experiment(experiment)).run_config(run).model_dump(mode="json")
    with tracking.stage("resolve", run, results=results, params=content, outputs=[output]):
        files.write_text(output, yaml.safe_dump(content, sort_keys=False))
