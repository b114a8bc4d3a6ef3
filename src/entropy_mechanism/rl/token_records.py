"""Per-token records: one parquet shard per recorded step, a row per response token of every update.

Table 1 (the distribution of covariances at the first step) and Fig 8 are drawn from these, and other definitions
of the covariance can be computed after the fact.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from entropy_mechanism import files
from entropy_mechanism.config import Clipping
from entropy_mechanism.rl import objectives
from entropy_mechanism.rl.batch import Rollout
from entropy_mechanism.rl.covariance import token_covariance
from entropy_mechanism.rl.objectives import Tokens

SCHEMA_VERSION = 2
"""Raised when columns change; stands in each shard's metadata as `schema_version`."""
COLUMNS = {
    "step": "rollout step",
    "update": "update of the step, from 0",
    "prompt": "row of the problem in the training set",
    "group": "responses to one draw of a prompt, from 0; a prompt drawn twice in a step has two",
    "sample": "response of the group, from 0",
    "position": "token of the response, from 0",
    "token": "token id",
    "old_logprob": "log pi of the policy that sampled, nats",
    "new_logprob": "log pi of the policy at the update, before it, nats",
    "entropy": "entropy of the sampling policy's next-token distribution at temperature 1, nats",
    "reward": "reward of the response",
    "advantage": "advantage",
    "covariance": "Eq. 10 over the tokens of the update, of new_logprob",
    "selected": "picked by Clip-Cov or KL-Cov",
    "clipped": "ratio cut by the PPO clip, so without gradient",
}


def token_frame(
    step: int,
    update: int,
    first_group: int,
    rollout: Rollout,
    tokens: Tokens,
    entropy_N: torch.Tensor,
    settings: object,
) -> pd.DataFrame:
    """The records of one update: `rollout` holds its responses, `tokens` what its loss saw; N rows.

    Groups are numbered from `first_group`. A response without tokens has no row.
    """
    lengths = torch.tensor([len(response) for response in rollout.responses])
    row_N = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]])
    below = above = torch.zeros_like(tokens.selected)
    if isinstance(settings, Clipping):
        below, above = objectives.clipped(tokens, settings)
    columns = {
        "step": torch.full_like(row_N, step).int(),
        "update": torch.full_like(row_N, update).int(),
        "prompt": torch.tensor(rollout.questions)[row_N].int(),
        "group": (first_group + row_N // rollout.group_size).int(),
        "sample": (row_N % rollout.group_size).int(),
        "position": (torch.arange(len(row_N)) - starts[row_N]).int(),
        "token": torch.tensor([token for response in rollout.responses for token in response]).int(),
        "old_logprob": tokens.old_logprob.float(),
        "new_logprob": tokens.logprob.detach().float(),
        "entropy": entropy_N.float(),
        "reward": rollout.rewards_PG.flatten()[row_N].float(),
        "advantage": tokens.advantage.float(),
        "covariance": token_covariance(tokens.logprob, tokens.advantage).float(),
        "selected": tokens.selected,
        "clipped": below | above,
    }
    return pd.DataFrame({name: columns[name].numpy() for name in COLUMNS})


def shard_path(folder: Path, step: int) -> Path:
    """Where the records of a step stand: `step-000040.parquet`."""
    return folder / f"step-{step:06d}.parquet"


def write_shard(folder: Path, step: int, frames: list[pd.DataFrame]) -> Path:
    """Write the records of one step; writing a step again replaces its shard."""
    path = shard_path(folder, step)
    table = pa.Table.from_pandas(pd.concat(frames, ignore_index=True), preserve_index=False)
    metadata = {**(table.schema.metadata or {}), b"schema_version": str(SCHEMA_VERSION).encode()}
    with files.replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)
    return path


def read_shard(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The records of one step, or some of their `columns`.

    Raises ValueError for a shard of another schema version and for what is no parquet file.
    """
    try:
        file = pq.ParquetFile(path)
        version = (file.schema_arrow.metadata or {}).get(b"schema_version", b"none").decode()
        if version == str(SCHEMA_VERSION):
            return file.read(columns=columns).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    raise ValueError(f"{path} has token records of schema {version}; this version reads {SCHEMA_VERSION}")


def read_shards(folder: Path) -> pd.DataFrame:
    """All records of a run, in order of steps; ValueError as by `read_shard`."""
    frames = [read_shard(path) for path in sorted(folder.glob("step-*.parquet"))]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))
