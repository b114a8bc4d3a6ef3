"""Checkpoints of a training run: written aside, synced, renamed, and marked complete with their digest.

A run's folder in the store holds `checkpoints/step-000040/` with `state.pt` and `complete.json`. A folder without
a marker, or whose digest differs, was cut short or damaged and is passed over.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from entropy_mechanism import files

KEPT = 2
"""Complete checkpoints kept: the newest, and the one before in case the newest is damaged."""


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the checkpoint of `step` and drop all but the newest `KEPT`."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".writing-"))
    with (temporary / "state.pt").open("wb") as handle:
        torch.save(state, handle)
        handle.flush()
        os.fsync(handle.fileno())
    files.write_json(temporary / "complete.json", {"step": step, "sha256": files.sha256(temporary / "state.pt")})
    _sync(temporary)
    final = folder / f"step-{step:06d}"
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    _sync(folder)
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def load_latest(folder: Path, warn: Any = print) -> dict[str, Any] | None:
    """The state of the newest sound checkpoint, or None; damaged ones are named to `warn` and passed over."""
    for stale in folder.glob(".writing-*"):
        shutil.rmtree(stale)
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        fault = _fault(candidate)
        if fault is None:
            return torch.load(candidate / "state.pt", map_location="cpu", weights_only=True)
        warn(f"checkpoint {candidate} is unusable ({fault}); trying the one before")
        shutil.rmtree(candidate)
    return None


def _fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        expected = files.read_json(checkpoint / "complete.json")["sha256"]
        found = files.sha256(checkpoint / "state.pt")
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return None if found == expected else f"digest {found[:12]}… instead of {expected[:12]}…"


def _sync(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
