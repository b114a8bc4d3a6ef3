"""A results folder from what MLflow holds: records, and the outputs of the newest finished execution of each.

Snakemake has no notes of its own about such a folder and goes by modification times. Each output therefore gets
the time at which its stage ended, or that of its newest input, where an input was made again with the same bytes.
"""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from entropy_mechanism.files import read_json, replacing, sha256
from entropy_mechanism.tracking.artifacts import (
    INVOCATION,
    RECORD,
    Copies,
    artifact_path,
    connect,
    copies,
    members,
    one_line,
    own_series,
)
from entropy_mechanism.tracking.invocations import (
    Invocation,
    invocation_of,
    read_invocation,
    read_invocations,
    write_invocation,
)
from entropy_mechanism.tracking.records import (
    FINISHED,
    NAME,
    RUNNING,
    File,
    Record,
    read_record,
    record_paths,
    without_credentials,
    write_record,
)
from entropy_mechanism.tracking.sync import EXPERIMENT, locked, note_sent

_AT_ONCE = 8
_SCRATCH = ".restore"


@dataclasses.dataclass(frozen=True)
class Absent:
    """An output that is neither here nor in MLflow; `readers` are the executions that read it."""

    file: File
    record: Record
    readers: tuple[Record, ...]


@dataclasses.dataclass(frozen=True)
class Restored:
    """What one restore did. `placed` and `present` count files; paths are relative to the results folder."""

    records: int
    placed: int
    size: int
    present: int
    without_record: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    absent: tuple[Absent, ...] = ()


def restore(
    results: Path | str,
    tracking_uri: str,
    experiment: str = EXPERIMENT,
    *,
    artifacts: Path | None = None,
    only: Iterable[str] = (),
    tell: Callable[[str], object] = print,
) -> Restored:
    """Bring records and outputs from an MLflow store into a results folder; repeat it to go on where it ended.

    `artifacts` is where the folder of artifacts is now, if it was moved; `only` names experiments of the workflow.
    A file that is there stays as it is, and is named in `kept` when it is not the recorded one. Raises ValueError
    for a store or experiment that does not exist, OSError for one that cannot be reached.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    results = Path(os.path.abspath(results))
    _check_uri(tracking_uri)
    try:
        client = connect(tracking_uri)
        found = _experiment(client, experiment, tracking_uri)
        store = Copies(tracking_uri, found, artifacts)
        runs, invocations = (_runs(client, found, tag) for tag in ("record_id", "invocation_id"))
        with locked(results, wait=60), _scratch(results) as scratch:
            tell(f"restoring {len(runs)} records of MLflow experiment {experiment!r}")
            without_record = _bring_records(results, store, runs, scratch)
            _bring_invocations(results, store, invocations, scratch)
            records = [read_record(path) for path in record_paths(results)]
            note_sent(results, found, tracking_uri, _sent(results, records, runs | invocations))
            done = _Outputs(records, only).bring(results, store, runs, scratch, tell)
        return dataclasses.replace(done, records=len(runs), without_record=tuple(without_record))
    except (MlflowException, RequestException, ImportError) as error:  # without the package that an address needs
        raise OSError(one_line(error)) from None


def _check_uri(uri: str) -> None:
    """Raise ValueError for an SQLite file that is not there, which MLflow would make."""
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.is_file():
        raise ValueError(f"--tracking-uri: found {uri}, but there is no file {path}")
    if "://" not in uri and "sqlite:" not in uri:
        raise ValueError(
            f"--tracking-uri: found {uri!r}; allowed: an address such as sqlite:///{path} or http://…"
        )


def _experiment(client: Any, name: str, uri: str) -> Any:
    found = client.get_experiment_by_name(name)
    if found is None:
        known = ", ".join(sorted(item.name for item in client.search_experiments()))
        place = without_credentials(uri)
        raise ValueError(f"--experiment: {place} has no MLflow experiment {name!r}; it has: {known}")
    return found


def _runs(client: Any, experiment: Any, tag: str) -> dict[str, Any]:
    """Runs of MLflow by the value of a tag; a run without it is none of the workflow's."""
    runs, token = {}, None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], f"tags.{tag} LIKE '%'", max_results=1000, page_token=token
        )
        runs.update({run.data.tags[tag]: run for run in page})
        if not (token := page.token):
            return dict(sorted(runs.items()))


def _bring_records(results: Path, store: Copies, runs: dict[str, Any], scratch: Path) -> list[str]:
    """Write each record, and its series, that is not here; returns the names of those that MLflow has not."""
    here = {path.stem: path for path in record_paths(results)}

    def bring(name: str) -> str | None:
        if name in here and read_record(here[name]).status != RUNNING:
            return None
        run = runs[name]
        if not store.has(run, RECORD):
            return None if name in here else name
        record = read_record(store.fetch(run, RECORD, scratch / name))
        if record.record_id != name or not NAME.fullmatch(name) or not NAME.fullmatch(record.stage):
            raise ValueError(f"MLflow run {run.info.run_id}: {RECORD} is not the record {name!r}; delete that run")
        _check_paths(record)
        path = results / "records" / record.stage / f"{record.record_id}.json"
        for series in own_series(record):
            place, copy = series.locate(results), Path(series.path).name
            if not place.exists() and store.has(run, copy):
                _place(store.fetch(run, copy, scratch / name), place)
        write_record(path, record)
        return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [name for name in pool.map(bring, runs) if name is not None]


def _bring_invocations(results: Path, store: Copies, runs: dict[str, Any], scratch: Path) -> None:
    def bring(name: str) -> None:
        if read_invocation(results, name) is None and store.has(runs[name], INVOCATION):
            value = invocation_of(read_json(store.fetch(runs[name], INVOCATION, scratch / name)))
            write_invocation(results, dataclasses.replace(value, invocation=name))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(bring, runs))


def _sent(results: Path, records: list[Record], runs: dict[str, Any]) -> list[tuple[Record | Invocation, str]]:
    """Every record and invocation whose run is complete, with the run's id."""
    items: dict[str, Record | Invocation] = {record.record_id: record for record in records}
    items |= {value.invocation: value for value in read_invocations(results)}
    return [
        (item, runs[name].info.run_id)
        for name, item in items.items()
        if name in runs and RUNNING not in (item.status, runs[name].info.status)
    ]


class _Outputs:
    """The outputs of the newest finished execution of each path, and what each needs."""

    def __init__(self, records: list[Record], only: Iterable[str]):
        """Of all records, oldest first; of the experiments `only`, and of what these have from the store."""
        self.newest: dict[str, tuple[Record, File]] = {}
        self._moments: dict[str, int] = {}
        self._made: dict[str, tuple[Record, str]] = {}
        self._readers: dict[tuple[str, str], list[Record]] = {}
        self._holders: dict[str, list[tuple[str, str]]] = {}
        for record in records:
            for file in record.inputs:
                self._readers.setdefault((file.path, file.sha256), []).append(record)
            if record.status != FINISHED:
                continue
            for path, digest in copies(record).items():
                self._holders.setdefault(digest, []).append((record.record_id, path))
            for file in (*record.outputs, *record.artifacts):
                if file.base == "results":
                    self.newest[file.path] = (record, file)
                    self._made.update({path: (record, digest) for path, digest in members(file).items()})
        if folders := tuple(f"{name}/" for name in only):
            self._keep_only(folders)

    def _keep_only(self, folders: tuple[str, ...]) -> None:
        names = sorted({path.split("/", 1)[0] + "/" for path in self.newest} - {"store/"})
        if unknown := [name for name in folders if name not in names]:
            raise ValueError(
                f"--workflow-experiment: found {unknown[0].rstrip('/')!r}; allowed: "
                f"{', '.join(name.rstrip('/') for name in names) or 'none, since nothing was finished'}"
            )
        shown = [item for path, item in self.newest.items() if path.startswith(folders)]
        used = {
            file.path
            for record, _ in shown
            for file in (*record.artifacts, *record.inputs)
            if file.path.startswith("store/")
        }
        self.newest = {
            path: item for path, item in self.newest.items() if path.startswith(folders) or path in used
        }

    def bring(
        self, results: Path, store: Copies, runs: dict[str, Any], scratch: Path, tell: Callable[[str], object]
    ) -> Restored:
        """Place what is not there. What a file's record says decides; a copy may come from any run."""

        def look(item: tuple[Record, File]) -> tuple[dict[str, str], list[str], bool]:
            """Files that are not there, files that are others, and whether all of the first can be had."""
            missing, others = _compared(item[1], results)
            return missing, others, all(any(self._sources(*item, path, store, runs)) for path in missing)

        def fetch(sources: list[tuple[Record, File, str]]) -> tuple[int, str | None]:
            """Place all files of one digest."""
            record, file, path = sources[0]
            digest = members(file)[path]
            for run, name in self._sources(record, file, path, store, runs):
                copy = store.fetch(run, name, scratch / digest)
                if sha256(copy) == digest:
                    for maker, _, target in sources:
                        _place(copy, results / target, self._moment(maker))
                    size = copy.stat().st_size * len(sources)
                    shutil.rmtree(scratch / digest, ignore_errors=True)
                    return size, None
            return 0, f"{name} of MLflow run {run.info.run_id}"

        by_digest: dict[str, list[tuple[Record, File, str]]] = {}
        kept, absent, present = [], [], 0
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for (record, file), (missing, others, can_be_had) in zip(
                self.newest.values(), pool.map(look, self.newest.values()), strict=True
            ):
                present += len(members(file)) - len(missing) - len(others)
                kept += [f"{path}, recorded by {record.stage} {record.key}" for path in others]
                if not can_be_had:
                    absent.append(Absent(file, record, tuple(self._readers.get((file.path, file.sha256), ()))))
                    continue
                for path, digest in missing.items():
                    by_digest.setdefault(digest, []).append((record, file, path))
                self._moment(record)  # before several threads ask for it
            tell(f"restoring {sum(map(len, by_digest.values()))} files; {present} are there")
            done = list(pool.map(fetch, by_digest.values()))
        return Restored(
            records=0,
            placed=sum(
                len(files) for files, (_, problem) in zip(by_digest.values(), done, strict=True) if not problem
            ),
            size=sum(size for size, _ in done),
            present=present,
            kept=tuple(kept),
            damaged=tuple(problem for _, problem in done if problem),
            absent=tuple(absent),
        )

    def _sources(
        self, record: Record, file: File, path: str, store: Copies, runs: dict[str, Any]
    ) -> Iterator[tuple[Any, str]]:
        """Runs and artifacts with the bytes of a file: of the execution that made it, then of any other."""
        own = (record.record_id, artifact_path(file, path))
        for name, copy in (own, *reversed(self._holders[members(file)[path]])):
            if name in runs and store.has(runs[name], copy):
                yield runs[name], copy

    def _moment(self, record: Record) -> int:
        """Modification time of what an execution made, ns since 1970: not before that of what it was made from."""
        if record.record_id not in self._moments:
            ended = round(datetime.fromisoformat(record.ended or record.started).timestamp() * 1e6) * 1000
            self._moments[record.record_id] = ended  # what asks meanwhile is a circle, which has no order
            inputs = [
                self._made[path]
                for file in record.inputs
                if file.base == "results"
                for path, digest in members(file).items()
                if path in self._made and self._made[path][1] == digest
            ]
            makers = {maker.record_id: maker for maker, _ in inputs}.values()
            self._moments[record.record_id] = max([ended, *map(self._moment, makers)])
        return self._moments[record.record_id]


def _compared(file: File, results: Path) -> tuple[dict[str, str], list[str]]:
    """Of a recorded file or folder what is not there, with its digests, and what is there and is another."""
    missing, others = {}, []
    for path, digest in members(file).items():
        place = results / path
        if not place.exists():
            missing[path] = digest
        elif not place.is_file() or sha256(place) != digest:
            others.append(path)
    return missing, others


def _check_paths(record: Record) -> None:
    """Raise ValueError for a record that would have a file written outside the results folder."""
    for file in (*record.outputs, *record.artifacts, *record.series):
        for path in map(Path, members(file) if file.base == "results" else ()):
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(
                    f"record {record.record_id} names {path}, outside the results folder; delete its run"
                )


def _place(source: Path, target: Path, moment: int | None = None) -> None:
    """Copy a file to where it belongs, in one step with its modification time."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        if moment is not None:
            os.utime(temporary, ns=(moment, moment))


@contextlib.contextmanager
def _scratch(results: Path) -> Iterator[Path]:
    """An empty folder for downloads; what a restore that was killed left in it is removed."""
    folder = results / _SCRATCH
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
