"""Rows of a published data set: from the hub, its cache, a mirror, an address or a local copy.

Files are downloaded by the Hugging Face libraries, which keep them below `HF_HOME`, go on with a download that was
cut short, ask `HF_ENDPOINT` and, with `HF_HUB_OFFLINE=1`, nobody. Every failure is a `SourceError` that says what
to do.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entropy_mechanism import files
from entropy_mechanism.config import HubSet
from entropy_mechanism.data.sources import SOURCES, Row, Source

COMMIT = re.compile(r"[0-9a-f]{40}")


class SourceError(ValueError):
    """A data set that could not be read, or is not what its entry says."""


@dataclass(frozen=True)
class Download:
    """An open data set."""

    rows: Iterator[Row]
    place: str
    """Where it was read, for messages and the record."""
    revision: str | None
    """What was asked for; None for a local copy."""
    commit: str | None
    """What that was at the time; None where it cannot be known."""


def open_source(settings: HubSet) -> Download:
    """Open the data set that `settings` name.

    Raises SourceError when it cannot be had: no network and no copy, no such repository, revision, configuration
    or split, or a file with another digest. What is in it is checked by `checked_rows`, as it is read.
    """
    source = SOURCES[settings.source]
    revision = settings.revision or source.revision
    if source.is_file:
        return _open_file(settings, source, revision)
    if settings.folder is not None:
        folder = _folder(settings)
        # The cache takes a folder whose files were replaced, and some other folders, for the one that it knows.
        with tempfile.TemporaryDirectory() as fresh:
            data = _load(settings, source, str(folder), None, streaming=True, cache_dir=fresh)
        return Download(iter(data), str(folder), None, None)
    import datasets

    commit = _commit_online(source, revision)
    streaming = source.streamed and commit is not None and not datasets.config.HF_HUB_OFFLINE
    data = _load(settings, source, source.place, commit or revision, streaming)
    commit = commit or _commit_of(data)
    if COMMIT.fullmatch(revision) and commit != revision:
        raise SourceError(
            f"{settings.source}: revision {revision} of {source.place} is asked for and the hub does not answer; "
            f"in the cache is {f'commit {commit}' if commit else 'an unknown commit'}; prepare it once with the "
            "network, or give another revision"
        )
    return Download(iter(data), source.place, revision, commit)


def checked_rows(download: Download, settings: HubSet) -> Iterator[Row]:
    """The rows.

    Raises SourceError at the first row for columns that are missing, and after the last one when their number is
    not one that is known to be right.
    """
    source, count = SOURCES[settings.source], 0
    while True:
        try:
            row = next(download.rows)
        except StopIteration:
            break
        except SourceError:
            raise
        except Exception as error:  # of any of the libraries below, most often the network's
            again = (
                "run the same command again" if settings.folder is None else "the copy is damaged, make it again"
            )
            raise SourceError(
                f"{settings.source}: reading {download.place} broke off after {count} rows ({_first(error)}); "
                f"{again}"
            ) from error
        if not count:
            _check_columns(row, settings, source)
        count += 1
        yield row
    expected = (settings.rows,) if settings.rows is not None else source.rows
    if count not in expected:
        raise SourceError(
            f"{settings.source}: {download.place} has {count} rows, expected {' or '.join(map(str, expected))}: "
            f"the publisher has changed it, or the copy is not whole; pin a revision that has the expected number "
            f"or accept the change with rows: {count}"
        )


# --- one way of each kind -----------------------------------------------------------------------------------


def _load(
    settings: HubSet,
    source: Source,
    place: str,
    revision: str | None,
    streaming: bool,
    cache_dir: str | None = None,
) -> Any:
    """What `datasets` makes of a repository or folder."""
    import datasets

    datasets.disable_progress_bars()  # a log holds lines, not bars
    try:
        return datasets.load_dataset(
            place,
            name=source.config,
            split=source.split,
            revision=revision,
            streaming=streaming,
            cache_dir=cache_dir,
        )
    except datasets.exceptions.DatasetNotFoundError as error:
        raise SourceError(
            f"{settings.source}: {place} could not be opened ({_first(error)}); check the revision; if it is "
            "private or gated, log in with `hf auth login` and accept its terms on its page; if it has moved, "
            "give a local copy as folder"
        ) from None
    except OSError as error:
        if settings.folder is None:
            raise SourceError(_unreachable(settings, place, error)) from error
        raise SourceError(
            f"{settings.source}: {place} holds no data ({_first(error)}); it should be a whole copy of "
            f"{source.place}, such as `hf download --repo-type dataset {source.place}` makes"
        ) from error
    except ValueError as error:  # datasets' answer to a configuration, split or data file that is not there
        wanted = f"configuration {source.config}, split" if source.config else "split"
        advice = "pin a revision that has it, or give a copy of one as folder"
        if settings.folder is not None:
            advice = (
                f"copy a revision of {source.place} that has it, whole, with the README.md that names "
                "configurations and splits"
            )
        raise SourceError(
            f"{settings.source}: {place}{f' at revision {revision}' if revision else ''} has no {wanted} "
            f"{source.split}: {_first(error)}; {advice}"
        ) from error


def _open_file(settings: HubSet, source: Source, revision: str) -> Download:
    address = source.place.format(revision=revision)
    name = address.rpartition("/")[2]
    if settings.folder is not None:
        path, address = _folder(settings) / name, str(_folder(settings) / name)
        if not path.is_file():
            raise SourceError(f"{settings.source}: there is no {path}; the folder must hold the file {name}")
    else:
        import datasets

        datasets.disable_progress_bars()
        try:
            path = Path(datasets.DownloadManager().download(address))
        except OSError as error:
            raise SourceError(_unreachable(settings, address, error)) from error
    if source.sha256 and revision == source.revision and settings.rows is None:
        found = files.sha256(path)
        if found != source.sha256:
            raise SourceError(
                f"{settings.source}: {address} is not the file that is known to be right: its SHA-256 is {found}, "
                f"expected {source.sha256}; download it again, or accept what it holds by giving its rows"
            )
    rows = _json_lines(path, settings.source)
    known = None if settings.folder is not None else revision
    commit = known if known and COMMIT.fullmatch(known) else None
    return Download(rows, address, known, commit)


def _json_lines(path: Path, name: str) -> Iterator[Row]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise SourceError(f"{name}: {path}:{number} is not JSON: {error}; download it again") from None
            if not isinstance(row, dict):
                raise SourceError(f"{name}: {path}:{number} is not a JSON object; is it the right file?")
            yield row


def _check_columns(row: Row, settings: HubSet, source: Source) -> None:
    """Raise SourceError when a column that the mapping reads is missing from the first row."""
    missing = [names for names in source.needs if not any(name in row for name in names.split("|"))]
    if not missing:
        return
    known = {name for names in source.needs for name in names.split("|")} | set(source.also)
    new = sorted(set(row) - known)
    raise SourceError(
        f"{settings.source}: columns have changed: missing {', '.join(missing).replace('|', ' or ')}; new "
        f"{', '.join(new) or 'none'}; pin a revision from before the change, or give a copy of one as folder"
    )


# --- revisions and messages ---------------------------------------------------------------------------------


def _commit_online(source: Source, revision: str) -> str | None:
    """The commit that a revision is now; None when the hub does not answer."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(source.place, revision=revision, timeout=30).sha
    except Exception:
        # whatever it is, load_dataset meets it too, looks into the cache, and its failure is reported
        return None


def _commit_of(data: Any) -> str | None:
    """The commit that a data set from the cache was downloaded at: the name of its folder there."""
    for file in getattr(data, "cache_files", None) or ():
        if COMMIT.fullmatch(Path(file["filename"]).parent.name):
            return Path(file["filename"]).parent.name
    return None


def _folder(settings: HubSet) -> Path:
    folder = Path(settings.folder or "").expanduser()
    if not folder.is_dir():
        raise SourceError(f"{settings.source}: folder: there is no folder {folder.absolute()}")
    return folder.resolve()


def _unreachable(settings: HubSet, place: str, error: Exception) -> str:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    where = "the address" if "://" in place else endpoint
    state, cache = ("never kept", "") if SOURCES[settings.source].streamed else ("not", " and the same HF_HOME")
    return (
        f"{settings.source}: {place} is {state} in the cache and {where} cannot be reached ({_first(error)}); "
        f"prepare it where there is a network{cache}, unset HF_HUB_OFFLINE if it is set, name a mirror in "
        "HF_ENDPOINT, or give a local copy as folder"
    )


def _first(error: Exception) -> str:
    """The first line of a message."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
