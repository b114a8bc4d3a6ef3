"""What a run is and what it logged -> the first two files of its analysis."""

from pathlib import Path

import pandas as pd

from entropy_mechanism import files, tracking
from entropy_mechanism.config import read_run_config
from entropy_mechanism.data.problems import task
from entropy_mechanism.models import manifest


def collect_curves(
    config: Path, metrics: Path, source: Path, train_set: Path, runs: Path, curves: Path, results: Path
) -> None:
    """What a run is in one row, and its metrics with its identity on every row."""
    run = read_run_config(config)
    inputs = [config, metrics, source, train_set]
    with tracking.stage("collect_curves", run.run, results=results, inputs=inputs, outputs=[runs, curves]):
        facts = manifest.read(source).facts
        names = ("steps", "gradient_steps", "parameters", "non_embedding_parameters", "seconds")
        row = run.identity | {name: facts[name] for name in names}
        row |= {
            part: getattr(run, part).model_dump_json() for part in ("advantage", "objective", "regularisation")
        }
        row |= {"aggregation": run.aggregation, "learning_rate": run.training.learning_rate}
        row |= {"task": task(train_set), "device": run.compute.device, "dtype": run.training.dtype}
        files.write_parquet(runs, pd.DataFrame([row]))
        frame = pd.read_parquet(metrics)
        for position, (name, value) in enumerate(run.identity.items()):
            frame.insert(position, name, value)
        files.write_parquet(curves, frame)
