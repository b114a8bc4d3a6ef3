"""Recorded files in MLflow: which are copied there, under which names, and how they are had back."""

import contextlib
import dataclasses
import logging
import os
import posixpath
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from entropy_mechanism.credentials import WEB_VARIABLES, check_address, without_credentials
from entropy_mechanism.files import replacing, sha256
from entropy_mechanism.paths import ARTIFACT_LIMIT_MB, ARTIFACT_LIMIT_VARIABLE
from entropy_mechanism.tracking.records import File, Record

RECORD, INVOCATION = "record.json", "invocation.json"
_SECONDS_OF_A_FILE = "30"  # for one answer while a file is copied: the server passes it on first


def artifact_limit() -> int:
    """Bytes up to which an output is copied. Raises ValueError for a setting that is no number."""
    text = os.environ.get(ARTIFACT_LIMIT_VARIABLE) or str(ARTIFACT_LIMIT_MB)
    try:
        return round(float(text) * 1e6)
    except (ValueError, OverflowError):
        raise ValueError(f"{ARTIFACT_LIMIT_VARIABLE}: found {text!r}; allowed: a number of megabytes") from None


def connect(uri: str) -> Any:
    """A client of an MLflow store whose requests end soon (the first use of a new SQLite file: 5 s).

    Raises ValueError for an address with credentials in it.
    """
    check_address(uri)
    # Bounded before MLflow reads them: its default is to retry for four minutes.
    for name, value in (
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "5"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
    ):
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient(uri)


def create_store(database: Path) -> None:
    """Make an SQLite store aside and rename it: MLflow cannot open one whose first migrations were cut short."""
    for abandoned in database.parent.glob(".mlflow-*"):
        abandoned.unlink()
    with replacing(database) as temporary:
        connect(f"sqlite:///{temporary}").search_experiments(max_results=1)


def follow_move(uri: str, results: Path, experiment: Any) -> bool:
    """Correct the places of artifacts in the SQLite store of a results folder that was moved or copied.

    MLflow writes absolute ones and has no way to change them; what is sent would go where the folder once was.
    Returns whether anything was corrected.
    """
    old, new = _local(experiment.artifact_location), results / "mlartifacts"
    if uri != f"sqlite:///{results}/mlflow.db" or old is None or old.name != new.name or old == new:
        return False
    if old.is_dir() and (not new.is_dir() or old.samefile(new)):
        return False
    before = experiment.artifact_location.rstrip("/")
    with contextlib.closing(sqlite3.connect(results / "mlflow.db", timeout=60)) as database, database:
        database.execute(
            "update experiments set artifact_location = ? where experiment_id = ?",
            (new.as_uri(), experiment.experiment_id),
        )
        database.execute(
            "update runs set artifact_uri = ? || substr(artifact_uri, ?)"
            " where experiment_id = ? and substr(artifact_uri, 1, ?) = ?",
            (new.as_uri(), len(before) + 1, experiment.experiment_id, len(before) + 1, f"{before}/"),
        )
    return True


def one_line(error: BaseException) -> str:
    """What went wrong, without credentials."""
    text = f"{type(error).__name__}: {error}".strip().split("\n", 1)[0]
    text = without_credentials(text if len(text) <= 300 else text[:299] + "…")
    if getattr(error, "error_code", "") == "UNAUTHENTICATED":
        text = f"{text}; the server asks for a name and password: {' and '.join(WEB_VARIABLES)} (docs/tracking.md)"
    return text


def members(file: File) -> dict[str, str]:
    """Path -> SHA-256: of a recorded file, or of every file in a recorded folder."""
    if file.tree is None:
        return {file.path: file.sha256}
    return {f"{file.path}/{name}": digest for name, digest in file.tree.items()}


def artifact_path(file: File, path: str) -> str:
    """Where a copy of `path`, one of the members of `file`, stands among the artifacts of a run."""
    inside = posixpath.normpath(f"/{path}").strip("/")  # no `..` of a path beside the working directory
    return f"{'outputs' if file.base == 'results' else 'elsewhere'}/{inside}"


def copies(record: Record) -> dict[str, str]:
    """Artifact path -> SHA-256 of everything that a run may hold of a record's outputs."""
    return {
        artifact_path(file, path): digest
        for file in (*record.outputs, *record.artifacts)
        for path, digest in members(file).items()
    }


def send(
    client: Any, run: str, record: Record, results: Path, limit: int, *, fresh: bool
) -> tuple[int, int | None]:
    """Copy a record, its series and its outputs up to `limit` bytes (a folder as a whole) to its MLflow run.

    Left out is what the run has already, by name and size, unless it is `fresh`; the same bytes a second time;
    and what is no longer the file that was recorded. Returns the number of files sent and the size of the smallest
    output that is larger than the limit, None without one.
    """
    held = None if fresh else _Listing(lambda folder: client.list_artifacts(run, folder))
    sent, seen, too_large = 0, set(), []
    with _patience():
        client.log_dict(run, dataclasses.asdict(record), RECORD)
        sent += 1
        for series in own_series(record):
            path = series.locate(results)
            if path.is_file() and path.stat().st_size <= limit:
                client.log_artifact(run, str(path))
                sent += 1
        for file in (*record.outputs, *record.artifacts):
            if file.size > limit:
                too_large.append(file.size)
                continue
            for name, digest in members(file).items():
                path = dataclasses.replace(file, path=name).locate(results)
                if digest in seen or not path.is_file():
                    continue
                target = artifact_path(file, name)
                if held is None or held.size(target) != path.stat().st_size:
                    if sha256(path) != digest:
                        continue
                    client.log_artifact(run, str(path), posixpath.dirname(target))
                    sent += 1
                seen.add(digest)
    return sent, min(too_large, default=None)


def own_series(record: Record) -> list[File]:
    """The series that stand beside the record; any other is an output of somebody."""
    return [file for file in record.series if file.path.startswith("records/")]


class Copies:
    """The artifacts of the runs of one MLflow experiment, read where they are: in a folder or behind a server.

    MLflow writes the absolute place of artifacts into its store. `moved` says where the folder is now; without
    it, a folder `mlartifacts` beside an SQLite file stands for one that is gone.
    """

    def __init__(self, uri: str, experiment: Any, moved: Path | None = None):
        self.uri = uri
        self.root = experiment.artifact_location.rstrip("/")
        self._listings: dict[str, _Listing] = {}
        self._folder = _local(self.root)
        if moved is not None:
            self._folder = Path(moved)
        elif self._folder is not None and not self._folder.is_dir() and uri.startswith("sqlite:///"):
            self._folder = Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts"
        if self._folder is not None and not self._folder.is_dir():
            raise FileNotFoundError(
                f"the artifacts of MLflow experiment {experiment.name!r} were kept in {_local(self.root)}, and "
                f"{self._folder} is no folder here; say with --artifacts where that folder is now"
            )

    def has(self, run: Any, path: str) -> bool:
        """Whether a run holds an artifact."""
        if (folder := self._local_run(run)) is not None:
            return (folder / path).is_file()
        if run.info.run_id not in self._listings:
            self._listings[run.info.run_id] = _Listing(self._repository(run).list_artifacts)
        return self._listings[run.info.run_id].size(path) is not None

    def fetch(self, run: Any, path: str, scratch: Path) -> Path:
        """A local file with the content of an artifact: its own, or a download into the folder `scratch`."""
        if (folder := self._local_run(run)) is not None:
            return folder / path
        scratch.mkdir(parents=True, exist_ok=True)
        with _patience():
            return Path(self._repository(run).download_artifacts(path, str(scratch)))

    def _local_run(self, run: Any) -> Path | None:
        if self._folder is None:
            return None
        uri = run.info.artifact_uri
        if not uri.startswith(self.root + "/"):
            return _local(uri)
        return self._folder / unquote(uri.removeprefix(self.root + "/"))

    def _repository(self, run: Any) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(run.info.artifact_uri, tracking_uri=self.uri)


class _Listing:
    """Sizes of the artifacts of one run, asked for folder by folder and once."""

    def __init__(self, ask: Any):
        self._ask = ask
        self._folders: dict[str, dict[str, int | None]] = {}

    def size(self, path: str) -> int | None:
        """Bytes of an artifact, None when there is none."""
        folder = posixpath.dirname(path)
        if folder not in self._folders:
            found = self._ask(folder or None)
            self._folders[folder] = {item.path: item.file_size for item in found if not item.is_dir}
        return self._folders[folder].get(path)


def _local(uri: str) -> Path | None:
    """The folder that an artifact address names, None when it is not on this machine's file system."""
    parsed = urlparse(uri)
    return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Let a request take as long as a large file needs; whether the server answers at all is known by now."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ.get(name)
    if before == "5":
        os.environ[name] = _SECONDS_OF_A_FILE
    try:
        yield
    finally:
        if before == "5":
            os.environ[name] = before
