"""From a file to every execution that it comes from, or to everything that was made from it."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entropy_mechanism.tracking.history import History, Link, title
from entropy_mechanism.tracking.records import FINISHED, File, Record, describe, place
from entropy_mechanism.tracking.sync import run_ids

_INDENT = "  "
_NAMED_SEPARATELY = ("kind", "prompt", "source")


@dataclasses.dataclass(frozen=True)
class Lineage:
    """What was asked for, the links from it, and the links of every execution that these lead to, by record id."""

    asked: str
    direction: str
    start: tuple[Link, ...]
    links: dict[str, tuple[Link, ...]]


def trace(history: History, asked: str, *, descendants: bool = False) -> Lineage:
    """Ancestors or descendants of a file, or of an execution named by its record, MLflow run, or stage and key.

    Raises FileNotFoundError or ValueError for what is not there, was not recorded, or could be several things.
    """
    found = _find(history, asked)
    follow = history.uses if descendants else history.origins
    if isinstance(found, Record):
        start = [Link((), found)]
    elif descendants:
        start = history.readers(found) or [Link((found,), None, "nothing that was recorded was made from it")]
    else:
        maker = history.maker(found)
        start = [Link((found,), maker, "" if maker else history.explain(found))]
    links: dict[str, tuple[Link, ...]] = {}
    ahead = [link.record for link in start]
    while ahead:
        record = ahead.pop()
        if record is not None and record.record_id not in links:
            links[record.record_id] = tuple(follow(record))
            ahead += [link.record for link in links[record.record_id]]
    return Lineage(asked, "descendants" if descendants else "ancestors", tuple(start), links)


def as_text(lineage: Lineage, history: History) -> Iterator[str]:
    """The tree, line by line: files, below them the execution that made (or read) them, below it what it read."""
    sent = run_ids(history.results)
    shown: set[str] = set()
    environments: list[str] = []

    def draw(links: tuple[Link, ...], depth: int) -> Iterator[str]:
        for link in links:
            for file in link.files:
                replaced = "" if history.is_newest(file) else ", since replaced"
                yield f"{_INDENT * depth}{file.path} (sha256 {file.sha256[:12]}{replaced})"
            if link.note:
                yield f"{_INDENT * (depth + bool(link.files))}{link.note}"
            if link.record is None:
                continue
            below = depth + bool(link.files or link.note)
            if link.record.record_id in shown:
                yield f"{_INDENT * below}{title(link.record)}, see above"
                continue
            shown.add(link.record.record_id)
            head, details = _lines(link.record, history, sent, environments)
            yield f"{_INDENT * below}{head}"
            yield f"{_INDENT * below}| {details}"
            yield from draw(lineage.links[link.record.record_id], below + 1)

    yield from draw(lineage.start, 0)
    for number, text in enumerate(environments, 1):
        yield f"environment {number}: {text}"


def as_json(lineage: Lineage, history: History) -> dict[str, Any]:
    """The same for programs: `executions` by record id, each with its `links`."""
    sent = run_ids(history.results)

    def link(value: Link) -> dict[str, Any]:
        files = [{"path": file.path, "base": file.base, "sha256": file.sha256} for file in value.files]
        name = value.record.record_id if value.record else None
        return {"files": files, "execution": name, "note": value.note or None}

    def execution(name: str) -> dict[str, Any]:
        record = history.records[name]
        kept = (
            "stage",
            "key",
            "status",
            "started",
            "ended",
            "seconds",
            "invocation",
            "params",
            "git",
            "environment",
        )
        experiment, run = sent.get(name, (None, None))
        return {
            **{field: getattr(record, field) for field in kept},
            "about": about(record, history),
            "mlflow": {"experiment_id": experiment, "run_id": run} if run else None,
            "outputs": {file.path: file.sha256 for file in (*record.outputs, *record.artifacts)},
            "links": [link(value) for value in lineage.links[name]],
        }

    return {
        "asked": lineage.asked,
        "direction": lineage.direction,
        "links": [link(value) for value in lineage.start],
        "executions": {name: execution(name) for name in lineage.links},
    }


def about(record: Record, history: History) -> dict[str, Any]:
    """What else is known of a data set, a base model or a run: where it was published, what it was made with."""
    params = record.params
    if record.stage == "prepare":
        facts = history.facts(record, f"{record.key}.json")
        published = {
            name: facts.get(name) for name in ("place", "config", "split", "revision", "commit", "licence")
        }
        return params | (published if params.get("kind") == "hub" else {})
    if record.stage == "make_model":
        facts = history.facts(record, "manifest.json")
        digests = facts.get("digests") or {Path(file.path).name: file.sha256 for file in record.outputs}
        weights = {name: digest for name, digest in digests.items() if name.endswith(".safetensors")}
        commit = {"commit": facts.get("commit")} if params.get("kind") == "hub" else {}
        return params | commit | {"weights": weights}
    names = ("run", "model", "train_set", "method", "seed", "fingerprint", "training_version", "taken_from")
    return {name: params[name] for name in names if name in params} if record.stage == "train" else {}


def _find(history: History, asked: str) -> File | Record:
    if asked in history.records:
        return history.records[asked]
    results = history.results
    for path in (Path(asked), results / asked):
        if path.exists():
            return _file(history, path)
    for name, (_, run) in run_ids(results).items():
        if asked == run and name in history.records:
            return history.records[name]
    if named := [item for item in history.records.values() if asked in (item.key, title(item))]:
        return _only(asked, named)
    where = place(asked, results)
    known = next((file for file in (where, File(asked, "results")) if history.versions(file)), None)
    if known is not None:
        last = history.versions(known)[-1]
        raise FileNotFoundError(
            f"{asked}: no such file; {title(last)} made it, and its history is that of record {last.record_id}"
        )
    raise FileNotFoundError(
        f"{asked}: no such file, and no record, run, stage or MLflow run of that name in {results / 'records'}"
    )


def _file(history: History, path: Path) -> File:
    where = place(path, history.results)
    if not history.mentions(where):
        if where.base == "cwd":
            raise ValueError(
                f"{path}: outside the results folder {os.path.abspath(history.results)}, and no record names it; "
                "give a file below it, or with --results the folder where it was recorded"
            )
        kind = (
            "folder that no stage recorded as a whole; give a file in it" if path.is_dir() else "file that is not "
        )
        raise ValueError(f"{path}: a {kind}{'' if path.is_dir() else 'recorded; no stage made or read it'}")
    return describe(path, history.results)


def _only(asked: str, records: list[Record]) -> Record:
    """The newest finished execution that a name stands for. Raises ValueError when these are several."""
    if trained := [record for record in records if record.stage == "train"]:
        records = trained
    newest: dict[tuple[str, str], Record] = {}
    for record in sorted(records, key=lambda item: (item.status == FINISHED, item.started)):
        folder = record.declared[0].path.split("/", 1)[0] if record.declared else ""
        newest[record.stage, folder] = record
    if len(newest) > 1:
        choice = "; ".join(f"{item.record_id} ({item.stage}, {folder})" for (_, folder), item in newest.items())
        raise ValueError(f"{asked}: several executions have this name; give the record of one: {choice}")
    return next(iter(newest.values()))


def _lines(
    record: Record, history: History, sent: dict[str, tuple[str, str]], environments: list[str]
) -> tuple[str, str]:
    """Name of an execution with what it is about; when, with which code and versions, and where it is recorded."""
    words = _words(record, about(record, history))
    head = title(record) + (f": {words}" if words else "")
    status = "" if record.status == FINISHED else f"{record.status}, "
    seconds = "" if record.seconds is None else f", {record.seconds:.1f} s"
    when = f"{status}{record.started[:19].replace('T', ' ')} UTC{seconds}"
    git = (record.git.get("revision") or "unknown")[:12]
    if record.git.get("dirty"):
        git += f" with changes {record.git.get('changes') or 'that were not recorded'}"
    run = f"MLflow run {sent[record.record_id][1]}" if record.record_id in sent else "not sent to MLflow"
    environment = f"environment {_number(record, environments)}"
    return head, "; ".join([when, f"git {git}", environment, run, f"record {record.record_id}"])


def _number(record: Record, environments: list[str]) -> int:
    value = record.environment
    packages = [f"{name} {version}" for name, version in value.get("packages", {}).items() if version]
    machine = f"{value.get('host')}, {value.get('platform')}"
    text = f"python {value.get('python')}, {', '.join(packages)}; on {machine}"
    if text not in environments:
        environments.append(text)
    return environments.index(text) + 1


def _words(record: Record, facts: dict[str, Any]) -> str:
    kind = facts.get("kind")
    if record.stage == "train" and facts:
        known = {"fingerprint": "unknown"} | facts
        words = "base model {model}, data set {train_set}, method {method}, seed {seed}, fingerprint {fingerprint}"
        return words.format_map(known)
    if record.stage == "make_model":
        weights = f"weights sha256 {_together(facts['weights'])}"
        if kind == "hub":
            commit = facts["commit"] or "unknown"
            return f"published as {facts['id']}, revision {facts['revision']}, commit {commit}; {weights}"
        return f"made here, {_settings(record.params)}; {weights}"
    if record.stage != "prepare":
        return ""
    if kind == "joined":
        return f"joined from {', '.join(facts['parts'])}"
    if kind != "hub":
        return f"generated ({kind}), {_settings(record.params)}"
    if not facts.get("place"):
        return f"published as {facts['source']}; its account is no longer as it was recorded"
    names = ("config", "split", "revision", "commit")
    parts = ", ".join(f"{name} {facts[name]}" for name in names if facts.get(name) is not None)
    settings = _settings(record.params)
    return f"published as {facts['source']} at {facts['place']}, {parts}" + (f"; {settings}" if settings else "")


def _together(digests: dict[str, str]) -> str:
    """One digest of several files, that of a folder with these alone; of one file its own."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest() if digests else "unknown, its manifest has changed"


def _settings(params: dict[str, Any]) -> str:
    """The plain values among settings."""
    shown = {
        name: value
        for name, value in params.items()
        if name not in _NAMED_SEPARATELY and not isinstance(value, dict)
    }
    return ", ".join(
        f"{name} {value}" for name, value in shown.items() if value is not None and value is not False
    )
