"""Analyses across the runs of a figure or table."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from entropy_mechanism import files, tracking
from entropy_mechanism.analysis.ceiling import ceiling_test
from entropy_mechanism.analysis.common_law import common_law
from entropy_mechanism.analysis.size_law import size_law
from entropy_mechanism.config import load_experiment
from entropy_mechanism.settings import Analysis

Frames = dict[str, pd.DataFrame]

STUDIES: dict[str, Callable[[Frames, Analysis], pd.DataFrame]] = {
    "size_law": lambda frames, _: size_law(frames["law"], frames["runs"]),
    "common_law": lambda frames, settings: common_law(frames["curves"], settings.seed, settings.resamples),
    "ceiling": lambda frames, settings: ceiling_test(frames["curves"], settings.seed, settings.resamples),
}


def study(experiment: Path, study: str, item: str, frames: list[str], output: Path, results: Path) -> None:
    """One study of the runs that a figure or table shows. Raises ValueError that lists the known studies."""
    if study not in STUDIES:
        raise ValueError(f"no study is named '{study}'; there are {', '.join(STUDIES)}")
    settings = load_experiment(experiment).analysis
    params = settings.model_dump(mode="json")
    key = f"{item}/{study}"
    with tracking.stage("study", key, results=results, params=params, inputs=frames, outputs=[output]):
        files.write_parquet(output, STUDIES[study](files.read_frames(frames), settings))
