"""Grades of a policy -> its scores."""

from pathlib import Path

import pandas as pd

from entropy_mechanism import files, tracking
from entropy_mechanism.config import chosen, load_experiment, named_paths
from entropy_mechanism.evaluation.metrics import MACRO, POOLED, scores
from entropy_mechanism.plan import Plan


def score(
    experiment: Path, policy: str, grades: list[str], overlaps: list[str], output: Path, results: Path
) -> None:
    """Score one policy from its grades, given as `benchmark=file`.

    The columns `clean_…` are the same scores without the problems that the files `overlaps` list, those which
    the policy's training sets contain; they are empty where nothing is left of a benchmark.
    """
    settings = load_experiment(experiment)
    identity = chosen("--policy", policy, Plan(settings).policies).identity
    paths = named_paths("--grades", grades, settings.evaluation.benchmarks)
    protocols = {name: settings.evaluation.benchmarks[name].protocols for name in paths}
    inputs: list[Path | str] = [*paths.values(), *overlaps]
    with tracking.stage("score", policy, results=results, inputs=inputs, outputs=[output]) as record:
        frames = {name: pd.read_parquet(path) for name, path in paths.items()}
        known = pd.concat([pd.read_parquet(path) for path in overlaps], ignore_index=True)
        clean = {}
        for name in paths:
            data = settings.evaluation.benchmarks[name].data
            seen = known.loc[known["tested_set"] == data, "problem_id"]
            left = frames[name][~frames[name]["problem_id"].isin(seen)]
            if len(left):
                clean[name] = left
        resampling = (protocols, settings.analysis.seed, settings.analysis.resamples)
        frame = _beside(scores(frames, *resampling), scores(clean, *resampling))
        for position, (name, value) in enumerate(identity.items()):
            frame.insert(position, name, value)
        frame = frame.astype({"seed": "Int64", "train_set": "str"})
        files.write_parquet(output, frame)
        record.metrics({f"{row.benchmark}/{row.protocol}": row.score for row in frame.itertuples()})
        print(frame[["benchmark", "protocol", "score", "low", "high"]].to_string(index=False))


def _beside(full: pd.DataFrame, clean: pd.DataFrame) -> pd.DataFrame:
    """The full scores with the clean ones in columns of their own, matched by benchmark and protocol.

    The averages are matched by name alone: where a benchmark is gone, their common protocol may be another.
    """
    columns = ["problems", "samples", "score", "low", "high"]
    keys = [
        [name if name in (POOLED, MACRO) else f"{name}/{protocol}" for name, protocol in pairs]
        for pairs in (zip(frame["benchmark"], frame["protocol"], strict=True) for frame in (full, clean))
    ]
    matched = clean[columns].add_prefix("clean_").set_axis(keys[1]).reindex(keys[0]).reset_index(drop=True)
    counts = ["clean_problems", "clean_samples"]
    return pd.concat([full, matched.astype(dict.fromkeys(counts, "Int64"))], axis=1)
