"""Token records of a run -> its covariances, as training logs them and at three levels.

A module of its own, since reading the records takes torch, which the other analyses need not load.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch

from entropy_mechanism import files, tracking
from entropy_mechanism.analysis.covariance_levels import step_levels
from entropy_mechanism.analysis.dynamics import LEVELS
from entropy_mechanism.analysis.token_covariances import METRICS, RECORDED, read_step, step_covariances
from entropy_mechanism.config import read_run_config, told_by_name
from entropy_mechanism.models import manifest
from entropy_mechanism.rl.token_records import read_shard, shard_path

TABLES = ("token_covariances", "covariance_levels")


def token_covariances(
    config: Path, metrics: Path, source: Path, store: Path, outputs: list[Path], results: Path
) -> None:
    """One row per recorded step of a run, none when it keeps no records. Outputs are told by stems, as `TABLES`.

    The records stand in the run's folder of the `store`, which the manifest `source` names by its fingerprint.
    Raises ValueError when a record is missing that settings and metrics say there is, or cannot be read.
    """
    torch.set_num_threads(1)  # the same bits on any number of cores
    run = read_run_config(config)
    paths = told_by_name("--outputs", outputs, TABLES)
    with tracking.stage(
        "token_covariances", run.run, results=results, inputs=[config, metrics, source], outputs=outputs
    ) as record:
        folder = store / manifest.read(source).facts["fingerprint"]
        if (folder / "tokens").is_dir():
            record.inputs_also(folder / "tokens")
        every = run.training.record_tokens_every
        steps = _recorded(pd.read_parquet(metrics), every, run.training.steps)
        covariances, levels = [], []
        try:
            _check_complete(folder / "tokens", steps)
            for step, groups in steps.items():
                records = read_shard(shard_path(folder / "tokens", step), RECORDED)
                tokens = read_step(records, groups, run.training.samples)
                covariances.append({"step": step} | step_covariances(tokens))
                levels.append({"step": step} | step_levels(tokens))
        except ValueError as error:
            raise ValueError(
                f"token records of {run.run} (training.record_tokens_every: {every}) are not as its training left "
                f"them: {error}. Delete {folder} and {source} and run the workflow again: that trains the run anew"
            ) from error
        tables = dict(zip(TABLES, ((covariances, METRICS), (levels, LEVELS)), strict=True))
        for file, path in paths.items():
            rows, names = tables[file]
            # the row that is cut off again gives a run without records the columns and their types
            model = pd.DataFrame([{"step": 0} | dict.fromkeys(names, 0.0)]).iloc[:0]
            frame = pd.DataFrame(rows) if rows else model
            for position, (name, value) in enumerate(run.identity.items()):
                column = pd.Series([value] * len(frame), index=frame.index, dtype=type(value))
                frame.insert(position, name, column)
            files.write_parquet(path, frame)
        record.metric("recorded_steps", len(covariances))


def _recorded(metrics: pd.DataFrame, every: int, steps: int) -> dict[int, int]:
    """The steps that keep records, with the groups each trained on; the last policy version is not trained."""
    if not every:
        return {}
    kept = metrics.set_index("step")["rollout/kept_groups"]
    kept = kept[(kept.index % every == 0) & (kept.index < steps) & (kept > 0)]
    return {int(step): int(groups) for step, groups in kept.items()}


def _check_complete(folder: Path, steps: Iterable[int]) -> None:
    """Raise ValueError that names steps without a shard."""
    missing = [step for step in steps if not shard_path(folder, step).is_file()]
    if missing:
        some = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise ValueError(f"{len(missing)} files of {folder} are missing (step {some})")
