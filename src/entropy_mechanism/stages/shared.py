"""A shared store: finished work that several results folders take from one place, and put there for each other.

`<shared>/<fingerprint>/` holds what was published and `published.json`, which has the digest of every file and
says where it was made. A publication appears whole, by a rename, and is not changed afterwards. Nothing in the
shared store is locked, since network file systems without locks are common there.

Imports nothing heavy, since `train` looks here before it imports what it computes with.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from entropy_mechanism import files
from entropy_mechanism.credentials import without_credentials
from entropy_mechanism.stages.stopping import tell

MARKER, SCHEMA = "published.json", 1
RUN = ("final", "tokens", "metrics.jsonl", "done.json")
"""What is shared of a finished run. `done.json` comes last, since with it a run counts as finished."""
ABANDONED = 86400.0
"""Seconds after which an unfinished publication has no publisher any more."""


def find(shared: Path | None, fingerprint: str) -> Path | None:
    """The folder of a publication of which every file has the digest that it was published with, else None.

    One that is damaged or cannot be read costs a line. The time is that of reading every file once.
    """
    if shared is None:
        return None
    place = _place(shared, fingerprint)
    try:
        if not place.is_dir():
            return None
        marker = files.read_json(place / MARKER)
        expected = marker["digests"]
        found = {name: digest for name, digest in files.sha256_of_tree(place).items() if name != MARKER}
        wrong = [name for name in sorted(found | expected) if found.get(name) != expected.get(name)]
        if marker["schema"] != SCHEMA:
            wrong = [f"schema {marker['schema']}, this version reads {SCHEMA}"]
    except PermissionError as error:
        tell(f"warning: {place} is not used, since it cannot be read ({error}); its owner can run chmod -R g+rX")
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        wrong = [f"{type(error).__name__}: {error}"]
    if wrong:
        tell(f"warning: {place} is not as it was published ({', '.join(wrong[:3])}), so it is not used; delete it")
    return None if wrong else place


def take(folder: Path, shared: Path | None, fingerprint: str) -> Path | None:
    """Let a run's `folder` in the store show the published run by links; returns its place, None without one.

    Only the owner of the folder's lock may. What stands in `folder` of the run's own training is removed when
    there is a published one, since it is superseded; otherwise links to one that is gone or damaged are.
    """
    before, source = origin(folder), find(shared, fingerprint)
    if before is not None and source is None:
        tell(f"{folder}: the run that was taken from {before} is gone from there, or damaged")
    for path in (folder / name for name in reversed(RUN)):
        if path.is_symlink():
            path.unlink()
    if source is None:
        return None
    try:
        (folder / ".link").symlink_to(source)  # before anything is removed: some file systems have no links
        (folder / ".link").unlink()
    except OSError as error:
        tell(f"warning: {source} cannot be used, since {folder} cannot hold links ({error.strerror})")
        return None
    for name in ("done.json", *RUN, "checkpoints", "best", "failed.json"):
        _remove(folder / name)
    for name in RUN:
        if (source / name).exists():
            (folder / name).symlink_to(source / name)
    return source


def origin(folder: Path) -> Path | None:
    """Where the run in this folder of the store was taken from; None when it was trained here."""
    done = folder / "done.json"
    return Path(os.readlink(done)).parent if done.is_symlink() else None


def publish(
    shared: Path | None, fingerprint: str, parts: Mapping[str, Path], provenance: Mapping[str, Any]
) -> None:
    """Copy files and folders into the shared store, under the names given; what is not there is left out.

    A publication that is there already stays. A shared store that cannot be written costs one line. Files get
    the permissions that the umask leaves.
    """
    if shared is None:
        return
    place = _place(shared, fingerprint)
    temporary = place.with_name(f".{fingerprint}-{secrets.token_hex(4)}")
    try:
        if place.exists():
            return
        for old in place.parent.glob(f".{fingerprint}-*"):
            with suppress(FileNotFoundError):
                if time.time() - old.stat().st_mtime > ABANDONED:
                    shutil.rmtree(old, ignore_errors=True)
        temporary.mkdir()
        digests = {}
        for name, part in parts.items():
            inside = [path for path in sorted(part.rglob("*")) if path.is_file()] if part.is_dir() else [part]
            for source in filter(Path.is_file, inside):
                target = temporary / name / source.relative_to(part)
                target.parent.mkdir(parents=True, exist_ok=True)
                digests[target.relative_to(temporary).as_posix()] = _copy(source, target)
        marker = {"schema": SCHEMA, "digests": digests, **provenance}
        files.write_text(temporary / MARKER, without_credentials(json.dumps(marker, indent=1)) + "\n")
        try:
            temporary.rename(place)
        except OSError:
            if not place.is_dir():  # else somebody was first
                raise
    except OSError as error:
        tell(f"warning: not published at {place}: {error}; is the shared store there, and can it be written?")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _place(shared: Path, fingerprint: str) -> Path:
    return Path(os.path.abspath(shared)) / fingerprint


def _copy(source: Path, target: Path) -> str:
    """Copy a file and return its digest; the copy is on disk on return."""
    digest = hashlib.sha256()
    with source.open("rb") as reading, target.open("xb") as writing:
        while chunk := reading.read(2**20):
            digest.update(chunk)
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    return digest.hexdigest()


def _remove(path: Path) -> None:
    """Delete a file, a link or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
