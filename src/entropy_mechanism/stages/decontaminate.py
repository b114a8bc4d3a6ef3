"""A training set and all test sets -> which test problems it contains."""

from pathlib import Path

import pandas as pd

from entropy_mechanism import files, tracking
from entropy_mechanism.config import load_experiment, named_paths
from entropy_mechanism.data.decontaminate import contained, summary
from entropy_mechanism.data.problems import from_frame


def decontaminate(
    experiment: Path, train_set: Path, tested: list[str], key: str, output: Path, table: Path, results: Path
) -> None:
    """Look for the problems of every test set, given as `name=file`, in the training set named `key`."""
    experiment_settings = load_experiment(experiment)
    settings = experiment_settings.decontamination
    paths = named_paths("--tested", tested, experiment_settings.data)
    params = settings.model_dump(mode="json")
    inputs = [train_set, *paths.values()]
    with tracking.stage(
        "decontaminate", key, results=results, params=params, inputs=inputs, outputs=[output, table]
    ) as record:
        tests = {name: from_frame(pd.read_parquet(path), str(path)) for name, path in paths.items()}
        found = contained(tests, from_frame(pd.read_parquet(train_set), str(train_set)), settings)
        files.write_parquet(output, found)
        counts = summary(found, key, {name: len(problems) for name, problems in tests.items()})
        files.write_text(table, counts.to_csv(index=False))
        record.metrics({f"{row.tested_set}/contained": row.contained for row in counts.itertuples()})
        print(counts.drop(columns="ids").to_string(index=False))
