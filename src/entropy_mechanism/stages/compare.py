"""Grades of a policy and of the policies it is compared with -> differences by problem."""

from pathlib import Path

import pandas as pd

from entropy_mechanism import files, tracking
from entropy_mechanism.config import chosen, load_experiment, named_paths
from entropy_mechanism.evaluation.comparison import compare
from entropy_mechanism.plan import Plan


def compare_policies(
    experiment: Path, policy: str, grades: list[str], references: list[str], output: Path, results: Path
) -> None:
    """Compare one policy, graded in files `benchmark=file`, with others, in files `policy/benchmark=file`."""
    settings = load_experiment(experiment)
    policies, benchmarks = Plan(settings).policies, settings.evaluation.benchmarks
    identity = chosen("--policy", policy, policies).identity
    ours = named_paths("--grades", grades, benchmarks)
    protocols = {name: benchmarks[name].protocols for name in ours}
    theirs: dict[str, dict[str, Path]] = {}
    pairs = [f"{other}/{name}" for other in policies for name in benchmarks]
    for name, path in named_paths("--references", references, dict.fromkeys(pairs)).items():
        other, benchmark = name.rsplit("/", 1)
        theirs.setdefault(other, {})[benchmark] = path
    inputs = [*ours.values(), *(path for paths in theirs.values() for path in paths.values())]
    with tracking.stage("compare", policy, results=results, inputs=inputs, outputs=[output]) as record:
        graded = {name: pd.read_parquet(path) for name, path in ours.items()}
        frames = []
        for other, paths in theirs.items():
            read = {name: pd.read_parquet(path) for name, path in paths.items()}
            frame = compare(graded, read, protocols, settings.analysis.seed, settings.analysis.resamples)
            columns = identity | {"reference": other, "reference_method": policies[other].method}
            for position, (name, value) in enumerate(columns.items()):
                frame.insert(position, name, value)
            frames.append(frame.astype({"seed": "Int64", "train_set": "str"}))
        files.write_parquet(output, pd.concat(frames, ignore_index=True))
        for frame in frames:
            pooled = frame[frame["benchmark"] == "pooled"].iloc[0]
            record.metric(f"pooled/{pooled['reference_method']}", float(pooled["difference"]))
            print(
                f"{policy} less {pooled['reference']}: {100 * pooled['difference']:+.1f} points "
                f"[{100 * pooled['low']:+.1f}, {100 * pooled['high']:+.1f}], p = {pooled['p']:.3f}"
            )
