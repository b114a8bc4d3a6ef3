"""From the rows of a published data set to problems, with an account of every row that was changed or left out."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from entropy_mechanism.config import HubSet
from entropy_mechanism.data.download import Download, SourceError, checked_rows, open_source
from entropy_mechanism.data.normalise import Unusable, answer_key, balanced, loose_key, strict_key
from entropy_mechanism.data.problems import Problem
from entropy_mechanism.data.sources import SOURCES

EXAMPLES = 5
"""Ids named for each reason."""
REPEATED, CONFLICTING, TRUNCATED = "repeated", "conflicting answers", "answer cut off: unbalanced braces"
MALFORMED = "not in the layout of its data set"


@dataclass
class Account:
    """Rows by reason: how many, and the ids of the first few."""

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, reason: str, id: str) -> None:
        """Count one row."""
        entry = self.entries.setdefault(reason, {"rows": 0, "examples": []})
        entry["rows"] += 1
        if len(entry["examples"]) < EXAMPLES:
            entry["examples"].append(id)


def read_published(settings: HubSet) -> tuple[list[Problem], dict[str, Any]]:
    """The problems of a published set in the publisher's order, and what the statistics file says about them.

    An id is the source's name and the number of the row, counted from 0. Raises SourceError for what
    `open_source` and `checked_rows` refuse, and when no or too few problems are left.
    """
    source, download = SOURCES[settings.source], open_source(settings)
    dropped, changed = Account(), Account()
    problems, read, others = _problems(download, settings, dropped, changed)
    if not source.benchmark and not settings.paper_rows:
        problems = without_conflicts(problems, dropped)
        problems = without_repetitions(problems, dropped, changed)
    if settings.data_sources:
        problems = _of(settings.data_sources, problems, settings.source, dropped)
    usable = len(problems)
    problems = _subset(problems, settings, dropped)
    facts = {
        "source": settings.source,
        "place": download.place,
        "config": source.config,
        "split": source.split,
        "revision": download.revision,
        "commit": download.commit,
        "licence": source.licence,
        "read": read,
        "of_other_tasks": others,
        "usable": usable,
        "kept": len(problems),
        "dropped": dropped.entries,
        "noted": changed.entries,
    }
    return problems, facts


def _problems(
    download: Download, settings: HubSet, dropped: Account, noted: Account
) -> tuple[list[Problem], int, int]:
    """Every row that can be used, the number of rows read, and the number that belong to another task."""
    source = SOURCES[settings.source]
    problems, read, others, seen = [], 0, 0, set()
    for read, row in enumerate(checked_rows(download, settings), 1):
        id = f"{settings.source}:{read - 1}"
        if source.wanted and not source.wanted(row):
            others += 1
            continue
        if source.identity:
            identity = source.identity(row)
            if identity in seen:
                dropped.add("copy of a row", id)
                continue
            seen.add(identity)
        try:
            fields = source.read(row)
        except Unusable as reason:
            dropped.add(str(reason), id)
            continue
        except (TypeError, KeyError, AttributeError):  # a null or a number where others have text or fields
            dropped.add(MALFORMED, id)
            continue
        if not balanced(fields.answer):
            if not settings.keep_truncated:
                dropped.add(TRUNCATED, id)
                continue
            noted.add(f"kept: {TRUNCATED}", id)
        problems.append(Problem(id, settings.source, fields.problem, fields.answer, fields.metadata, fields.tests))
    if source.identities is not None and settings.rows is None and len(seen) != source.identities:
        raise SourceError(
            f"{settings.source}: {download.place} has {len(seen)} different rows, expected {source.identities}; "
            f"pin a revision that has them, or accept the change with rows: {read}"
        )
    return problems, read, others


def without_conflicts(problems: Iterable[Problem], dropped: Account) -> list[Problem]:
    """Without problems that stand there with different answers: nobody knows which is right.

    Two texts are one problem here when they differ in layout and punctuation alone; `x+1` is not `x-1`.
    """
    problems = list(problems)
    keys = [strict_key(p.problem) for p in problems]
    answers = defaultdict(set)
    for key, problem in zip(keys, problems, strict=True):
        answers[key].add(answer_key(problem.answer))
    kept = []
    for key, problem in zip(keys, problems, strict=True):
        if len(answers[key]) > 1:
            dropped.add(CONFLICTING, problem.id)
        else:
            kept.append(problem)
    return kept


def without_repetitions(problems: Iterable[Problem], dropped: Account, noted: Account) -> list[Problem]:
    r"""The first of every group of problems with the same letters and digits (`\W` removed) and the same answer.

    With another answer the text must differ in a sign or operator: another problem, kept and noted.
    """
    kept: list[Problem] = []
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for problem in problems:
        key, answer = loose_key(problem.problem), answer_key(problem.answer)
        if answer in seen[key]:
            dropped.add(REPEATED, problem.id)
            continue
        if seen[key]:
            noted.add("kept: differs from another in signs and operators alone", problem.id)
        seen[key].add(answer)
        kept.append(problem)
    return kept


def _of(names: list[str], problems: list[Problem], source: str, dropped: Account) -> list[Problem]:
    """The problems whose `data_source` is one of `names`; SourceError when one of the names has none."""
    found = {problem.metadata.get("data_source") for problem in problems}
    if unknown := set(names) - found:
        there = ", ".join(sorted(filter(None, found))) or "none"
        raise SourceError(
            f"{source}: data_sources: no problem is of {', '.join(sorted(unknown))}; there are {there}"
        )
    kept = []
    for problem in problems:
        if problem.metadata.get("data_source") in names:
            kept.append(problem)
        else:
            dropped.add("of another data_source", problem.id)
    return kept


def _subset(problems: list[Problem], settings: HubSet, dropped: Account) -> list[Problem]:
    """A random subset of the size asked for, in the publisher's order."""
    if not problems:
        reasons = (f"{entry['rows']} {reason}" for reason, entry in dropped.entries.items())
        raise SourceError(
            f"{settings.source}: no row could be used: {'; '.join(reasons) or 'none belongs to this set'}"
        )
    if settings.limit is None:
        return problems
    if settings.limit > len(problems):
        raise SourceError(
            f"{settings.source}: limit: found {settings.limit}, but only {len(problems)} problems can be used; "
            "allowed: at most as many, or no limit"
        )
    chosen = np.random.default_rng(settings.seed).permutation(len(problems))[: settings.limit]
    return [problems[i] for i in sorted(chosen)]
