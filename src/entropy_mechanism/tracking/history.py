"""Which execution made which file: an index of all records, in which digests decide.

An input of a record belongs to the output with the same path and SHA-256 of an earlier finished execution. The
order is that of the starts, so no execution can come before itself, whatever the clocks of several machines say.
"""

import dataclasses
import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from entropy_mechanism.files import read_json, sha256
from entropy_mechanism.tracking.artifacts import members
from entropy_mechanism.tracking.records import FAILED, FINISHED, KILLED, File, Record, read_record, record_paths

_Key = tuple[str, str, str]  # base, path, sha256


@dataclasses.dataclass(frozen=True)
class Link:
    """Files that passed from one execution to another; without a `record`, `note` says why in plain words."""

    files: tuple[File, ...]
    record: Record | None
    note: str = ""


class History:
    """All records of a results folder, read once."""

    def __init__(self, results: Path | str):
        """Raises ValueError naming a file below `records` that is none."""
        self.results = Path(results)
        self.records = {path.stem: read_record(path) for path in record_paths(results)}
        self._made: dict[_Key, list[Record]] = {}
        self._read: dict[_Key, list[Record]] = {}
        self._versions: dict[tuple[str, str], list[tuple[str, Record]]] = {}
        self._places: dict[str, list[tuple[str, Record]]] = {}
        self._attempts: dict[str, list[Record]] = {}
        self._mentioned: set[tuple[str, str]] = set()
        self._unfinished: dict[tuple[str, str], Record] = {}
        for record in sorted(self.records.values(), key=_order):
            if fingerprint := _fingerprint(record):
                self._attempts.setdefault(fingerprint, []).append(record)
            for file in (*record.inputs, *record.declared, *record.outputs, *record.artifacts):
                self._mentioned.update((file.base, path) for path in (file.path, *members(file)))
            if record.status != FINISHED:
                self._unfinished.update({(file.base, file.path): record for file in record.declared})
            for file in record.inputs:
                for key in _keys(file):
                    self._read.setdefault(key, []).append(record)
            for file in (*record.outputs, *record.artifacts) if record.status == FINISHED else ():
                for base, path, digest in _keys(file):
                    self._made.setdefault((base, path, digest), []).append(record)
                    self._versions.setdefault((base, path), []).append((digest, record))
                    self._places.setdefault(digest, []).append((path, record))

    def maker(self, file: File, reader: Record | None = None) -> Record | None:
        """The last finished execution, before `reader` began, that left this content at this path."""
        made = self._made.get((file.base, file.path, file.sha256), [])
        before = made if reader is None else made[: bisect_left(made, _order(reader), key=_order)]
        ended = (item for item in reversed(before) if reader is None or (item.ended or "") <= reader.started)
        return next(ended, before[-1] if before else None)

    def origins(self, record: Record) -> list[Link]:
        """Where each input of an execution came from, files of one maker together; then what it went on from."""
        links = _grouped(itertools.chain.from_iterable(self._sources(file, record) for file in record.inputs))
        if before := self._continued(record):
            links = [link for link in links if link.record or not all(map(_in_store, link.files))]
        return links + before

    def uses(self, record: Record) -> list[Link]:
        """Who read what an execution made; last, without a record, what nobody read."""
        files = [*record.outputs, *record.artifacts] if record.status == FINISHED else []
        links: list[tuple[File, Record | None, str]] = []
        for file in files:
            readers = self._readers(file, record)
            links += [(file, reader, "") for reader in readers] or [(file, None, "")]
        return sorted(_grouped(links), key=lambda link: (link.record is None, _order(link.record)))

    def readers(self, file: File) -> list[Link]:
        """Who read a file with this content, whoever made it."""
        return [Link((file,), record) for record in self._read.get(_key(file), [])]

    def is_newest(self, file: File) -> bool:
        """Whether no later execution left another content at this path."""
        versions = self._versions.get((file.base, file.path))
        return not versions or versions[-1][0] == file.sha256

    def versions(self, file: File) -> list[Record]:
        """The finished executions that made something at a file's path, in their order."""
        return [record for _, record in self._versions.get((file.base, file.path), [])]

    def mentions(self, file: File) -> bool:
        """Whether any execution made, read or was to make something at a file's path."""
        return (file.base, file.path) in self._mentioned

    def explain(self, file: File, reader: Record | None = None) -> str:
        """Why no record made a file: changed since, not finished, made later or elsewhere, or unknown."""
        versions = self._versions.get((file.base, file.path), [])
        if reader is not None:
            versions = [item for item in versions if _order(item[1]) < _order(reader)]
        if versions:
            digest, last = versions[-1]
            return (
                f"changed, by nothing that was recorded, after {title(last)} made it with sha256 {digest[:12]} "
                f"(record {last.record_id})"
            )
        if later := self._made.get(_key(file)):
            return f"no record made it before it was read; {title(later[0])} made the same later"
        if unfinished := self._unfinished.get((file.base, file.path)):
            return f"no finished execution made it; {title(unfinished)}, which was to, is {unfinished.status}"
        if others := [item for item in self._places.get(file.sha256, []) if item[0] != file.path]:
            path, record = others[-1]
            return f"no record made it here; {title(record)} made the same content as {path}"
        return "no record made it: it was there before, or was made by hand or elsewhere"

    def facts(self, record: Record, name: str) -> dict[str, Any]:
        """The JSON file `name` among an execution's outputs; empty when it is no longer as it was recorded."""
        for file in record.outputs:
            path = file.locate(self.results)
            if path.name == name and path.is_file() and sha256(path) == file.sha256:
                return read_json(path)
        return {}

    def _sources(self, file: File, reader: Record) -> Iterator[tuple[File, Record | None, str]]:
        maker = self.maker(file, reader)
        if maker is None and file.tree and any(self.maker(part, reader) for part in _parts(file)):
            for part in _parts(file):  # a folder whose files were recorded one by one
                yield from self._sources(part, reader)
        else:
            yield file, maker, "" if maker else self.explain(file, reader)

    def _readers(self, file: File, maker: Record) -> list[Record]:
        parts = [file, *_parts(file)] if file.tree else [file]
        found = {
            reader.record_id: reader
            for part in parts
            for reader in self._read.get(_key(part), [])
            if self.maker(part, reader) is maker
        }
        return list(found.values())

    def _continued(self, record: Record) -> list[Link]:
        """Attempts that an execution of `train` went on from, or the one whose run it found in the store."""
        found = [file for file in record.inputs if _in_store(file)]
        if not (fingerprint := _fingerprint(record)) or any(self.maker(file, record) for file in found):
            return []
        attempts = self._attempts[fingerprint]
        earlier = attempts[: bisect_left(attempts, _order(record), key=_order)]
        finished = [item for item in earlier if item.status == FINISHED]
        if finished and (found or not any(_in_store(file) for file in record.artifacts)):
            return [Link(tuple(found), finished[0], "found in the store, where it was trained by")]
        since = earlier[earlier.index(finished[-1]) + 1 :] if finished else earlier
        return [Link(tuple(found), item, "went on from") for item in since if item.status in (KILLED, FAILED)]


def title(record: Record) -> str:
    """An execution as a person names it."""
    return f"{record.stage} {record.key}"


def _fingerprint(record: Record) -> str | None:
    return record.params.get("fingerprint") if record.stage == "train" else None


def _in_store(file: File) -> bool:
    return file.base == "results" and file.path.startswith("store/")


def _order(record: Record | None) -> tuple[str, str]:
    return (record.started, record.record_id) if record else ("", "")


def _key(file: File) -> _Key:
    return file.base, file.path, file.sha256


def _parts(file: File) -> list[File]:
    return [File(path, file.base, digest) for path, digest in members(file).items()]


def _keys(file: File) -> Iterable[_Key]:
    return {_key(file), *map(_key, _parts(file))}


def _grouped(items: Iterable[tuple[File, Record | None, str]]) -> list[Link]:
    groups: dict[tuple[str, str], list[tuple[File, Record | None]]] = {}
    for file, record, note in items:
        groups.setdefault((record.record_id if record else "", note), []).append((file, record))
    return [Link(tuple(file for file, _ in group), group[0][1], note) for (_, note), group in groups.items()]
