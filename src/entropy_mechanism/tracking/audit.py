"""Comparing the files on disk with the records of the stages that wrote them."""

import dataclasses
import os
from pathlib import Path
from typing import Literal

from entropy_mechanism.paths import GAVE_UP, RESERVED
from entropy_mechanism.tracking.provenance import vanished
from entropy_mechanism.tracking.records import (
    FINISHED,
    RUNNING,
    SNAKEMAKE_MARKER,
    File,
    Record,
    describe,
    read_record,
    record_paths,
)

Kind = Literal["missing", "changed", "unrecorded", "unreadable"]
AUDITED = ("data", "models", "runs", "evaluation", "analysis", "figures", "tables", "report")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One difference between disk and records. `path` is relative as in the record."""

    kind: Kind
    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path} ({self.detail})"


def audit(results: Path | str) -> list[Finding]:
    """Outputs missing or changed since they were recorded, and files that no stage recorded, by path.

    Every output is compared with the last FINISHED execution that recorded it. What a running stage is about
    to replace is passed over. Files are looked for in the folders of each experiment only (`AUDITED`), and
    hashed again in full, so the time is that of reading every output once.
    """
    results = Path(os.path.abspath(results))
    findings: list[Finding] = []
    written: dict[Path, tuple[File, Record]] = {}
    being_written: set[Path] = set()
    known: set[Path] = set()
    for path in record_paths(results):  # oldest first: a later execution replaces an earlier one
        try:
            record = read_record(path)
        except ValueError as error:
            findings.append(Finding("unreadable", path.relative_to(results).as_posix(), str(error)))
            continue
        if record.status == FINISHED:
            written.update({output.locate(results): (output, record) for output in record.outputs})
            known.update(file.locate(results) for file in (*record.artifacts, *record.series))
        elif record.status == RUNNING and not vanished(record.process):
            being_written.update(file.locate(results) for file in record.declared)
    for path, (output, record) in written.items():
        if path not in being_written:
            findings.extend(_compare(path, output, record, results))
    known |= being_written | set(written)
    findings.extend(
        Finding("unrecorded", path.relative_to(results).as_posix(), "no stage recorded writing it")
        for path in _files_of_experiments(results)
        if path not in known and known.isdisjoint(path.parents)
    )
    return sorted(findings, key=lambda finding: (finding.path, finding.kind))


def _compare(path: Path, output: File, record: Record, results: Path) -> list[Finding]:
    """Differences of one recorded output, file by file when it is a folder."""
    by = f"recorded by {record.stage} {record.key}, {record.record_id}"
    if not path.exists():
        return [Finding("missing", output.path, by)]
    found = describe(path, results)
    if found.sha256 == output.sha256:
        return []
    if output.tree is None or found.tree is None:
        return [Finding("changed", output.path, f"sha256 {found.sha256[:12]}, {output.sha256[:12]} {by}")]
    kinds: dict[str, Kind] = {
        name: "missing" if name not in found.tree else "changed" if name in output.tree else "unrecorded"
        for name in output.tree | found.tree
        if output.tree.get(name) != found.tree.get(name)
    }
    return [Finding(kind, f"{output.path}/{name}", f"folder {by}") for name, kind in kinds.items()]


def _files_of_experiments(results: Path) -> list[Path]:
    """Every file in the audited folders of every experiment."""
    experiments = (folder for folder in results.glob("*") if folder.is_dir() and folder.name not in RESERVED)
    return [
        path
        for experiment in experiments
        for room in AUDITED
        for path in (experiment / room).rglob("*")
        if path.is_file() and path.name not in (SNAKEMAKE_MARKER, GAVE_UP)
    ]
