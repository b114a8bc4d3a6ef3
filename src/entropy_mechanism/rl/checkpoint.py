"""Checkpoints of a training run: written aside, synced, renamed, and marked complete with their digest.

A run's folder in the store holds `checkpoints/step-000040/` with `state.pt` and `complete.json`. A folder without
a marker, or whose digest differs, was cut short or damaged and is passed over. One process at a time writes here.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from entropy_mechanism import files
from entropy_mechanism.rl.errors import PermanentError

FORMAT = 3
"""Raised whenever a checkpoint written before can no longer be read."""
KEPT = 2
"""Complete checkpoints kept: the newest, and the one before in case the newest is damaged."""


class ForeignCheckpoint(PermanentError):
    """A sound checkpoint of another run, or of another version of this program."""


def save(folder: Path, step: int, state: dict[str, Any], run: str = "", needed: int | None = None) -> None:
    """Write the checkpoint of `step` and drop all but the newest `KEPT` and the one of step `needed`.

    `run` is the fingerprint of the run, which `newest_sound` compares. The folder of a checkpoint appears at once
    and complete, whenever the process is killed; after an error nothing is left of it.
    """
    temporary = folder / f".writing-{step:06d}"
    _remove(temporary)
    temporary.mkdir(parents=True)
    try:
        with (temporary / "state.pt").open("wb") as handle:
            torch.save(state, handle)
            handle.flush()
            os.fsync(handle.fileno())
        digest = files.sha256(temporary / "state.pt")
        marker = {"format": FORMAT, "run": run, "step": step, "sha256": digest}
        files.write_json(temporary / "complete.json", marker)
        sync_folder(temporary)
        final = folder / f"step-{step:06d}"
        _remove(final)
        temporary.rename(final)
    except BaseException:  # a disk that is full should not be kept full by what did not fit
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder)
    for old in _checkpoints(folder)[KEPT:]:
        if _step(old) != needed:
            _remove(old)


def newest_sound(folder: Path, warn: Any = print, run: str = "", last_step: float = float("inf")) -> Path | None:
    """The newest sound checkpoint up to `last_step`, or None; others are named to `warn` and removed.

    Raises `ForeignCheckpoint` for a sound one that belongs to another run or format, and OSError when a file
    cannot be read at present: that is no reason to give a checkpoint up.
    """
    for stale in _leftovers(folder):
        shutil.rmtree(stale)
    for candidate in _checkpoints(folder):
        fault = _fault(candidate, run)
        if fault is None and _step(candidate) > last_step:
            fault = f"all else is known up to step {last_step} only"
        if fault is None:
            return candidate
        warn(f"checkpoint {candidate} is unusable ({fault}); trying the one before")
        _remove(candidate)
    return None


def load(checkpoint: Path) -> dict[str, Any]:
    """The state in a checkpoint that `newest_sound` found, on the CPU."""
    return torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("step-*"), key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _fault(checkpoint: Path, run: str) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        marker = files.read_json(checkpoint / "complete.json")
        expected, found = marker["sha256"], files.sha256(checkpoint / "state.pt")
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    if found != expected:
        return f"digest {found[:12]}… instead of {expected[:12]}…"
    for name, wanted in (("format", FORMAT), ("run", run)):
        if marker.get(name) != wanted:
            raise ForeignCheckpoint(
                f"checkpoint {checkpoint} has {name} {marker.get(name)!r} where this training needs {wanted!r}; "
                f"move {checkpoint.parent} away to train from the beginning"
            )
    return None


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint so that a half-deleted one never stands under a checkpoint's name."""
    if checkpoint.exists():
        doomed = checkpoint.with_name(f".removing-{checkpoint.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        checkpoint.rename(doomed)
        shutil.rmtree(doomed)


def _leftovers(folder: Path) -> list[Path]:
    """What a killed process had begun to write or remove; other dot files, such as .nfs and .DS_Store, stay."""
    return [*folder.glob(".writing-*"), *folder.glob(".removing-*")]
