"""Data set settings -> problems as parquet, and a statistics file."""

from pathlib import Path

from entropy_mechanism import files, tracking
from entropy_mechanism.config import chosen, load_experiment
from entropy_mechanism.data import arithmetic, programs
from entropy_mechanism.data.problems import to_frame

GENERATORS = {"arithmetic": arithmetic.generate, "programs": programs.generate}
"""By kind of data set."""


def prepare(experiment: Path, data: str, output: Path, statistics: Path, results: Path) -> None:
    """Make one data set of an experiment."""
    settings = chosen("--data", data, load_experiment(experiment).data)
    params = settings.model_dump(mode="json")
    with tracking.stage("prepare", data, results=results, params=params, outputs=[output, statistics]) as record:
        frame = to_frame(GENERATORS[settings.kind](settings, source=data))
        files.write_parquet(output, frame)
        summary = {"data": data, "kept": len(frame), "dropped": {}, "sha256": files.sha256(output), **params}
        files.write_json(statistics, summary)
        record.metric("problems", len(frame))
        print(f"{data}: {len(frame)} problems, for example {frame['problem'].iloc[0]}")
