"""Reading, writing and fingerprinting files. Every write goes to a temporary name first and is then renamed."""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

_FULL = (errno.ENOSPC, errno.EDQUOT)  # a disk, or a quota


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced to disk and renamed to `path`.

    The temporary name keeps the suffix, since writers such as matplotlib choose the format by it. After an
    error the temporary file is removed and whatever stood at `path` is untouched. OSError of a disk that is full
    names `path`, which Python's own mostly does not.
    """
    path, temporary = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files private; results are shared with a group
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in _FULL:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def append_line(handle: BinaryIO, line: bytes) -> None:
    """Append a line to a file that was opened without a buffer; afterwards a killed process loses nothing of it.

    Raises OSError that names the file when it is not written whole, as on a disk that becomes full meanwhile; what
    was written of it is taken back, so that lines appended later stay readable.
    """
    end, left = handle.seek(0, os.SEEK_END), memoryview(line)
    try:
        while left:
            left = left[handle.write(left) :]
    except OSError as error:
        with contextlib.suppress(OSError):
            handle.truncate(end)
        raise OSError(error.errno, error.strerror, handle.name) from error


def no_space(place: Path) -> str:
    """What a person is told when the disk that `place` is on is full."""
    place = place.absolute()
    place = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
    cure = "free some, then run the same command again: what is finished is kept"
    return f"no space left on the file system of {place}; {cure}"


def full_disk(error: BaseException) -> BaseException | None:
    """The error, or the one behind it, that is a full disk or a quota used up, whichever library says so."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return cause
        if any(os.strerror(number) in str(cause) for number in _FULL):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def nearest(path: Path | str) -> Path:
    """What stands at a path, or else the nearest folder above it that is there."""
    path = Path(path).absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity are refused, since no JSON reader agrees on them."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read one JSON document."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_parquet(path: Path | str, frame: Any) -> None:
    """Write a pandas frame without its index. Equal frames give equal bytes under one pyarrow version."""
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)


def read_frames(paths: Iterable[Path | str]) -> dict[str, Any]:
    """A pandas frame of each kind of parquet files, told by their stems: files of a kind one below the other."""
    import pandas as pd  # not where jobs are planned

    kinds: dict[str, list[pd.DataFrame]] = {}
    for path in paths:
        kinds.setdefault(Path(path).stem, []).append(pd.read_parquet(path))
    return {kind: pd.concat(parts, ignore_index=True) for kind, parts in kinds.items()}


def sha256(path: Path | str) -> str:
    """Hex digest of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_of_tree(folder: Path | str) -> dict[str, str]:
    """Digest of every file below `folder`, keyed by its path relative to it, in sorted order."""
    folder = Path(folder)
    return {
        path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def fingerprint(value: Any) -> str:
    """Sixteen hex digits that identify a JSON-serialisable value, independent of key order."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
