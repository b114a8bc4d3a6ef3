r"""Grading mathematical answers: last balanced `\boxed{}`, exact comparison, then math-verify in worker processes.

What is graded how, and what is a policy rather than mathematics, stands in docs/grading.md.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from entropy_mechanism.config import GraderName
from entropy_mechanism.rewards import numbers
from entropy_mechanism.rewards.boxed import last_boxed
from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rewards.paper import mathd
from entropy_mechanism.rewards.spelling import canonical, normalised
from entropy_mechanism.rewards.workers import Workers

MAX_ANSWER = 500
"""Characters of an answer at most; longer ones are wrong without being parsed."""
MAX_DEPTH = 20
"""Brackets within brackets at most; deeper answers are wrong without being parsed."""
WORKERS = 2
DEADLINE = 5.0
"""Seconds for one comparison; the slowest reference answers take half a second."""
REMEMBERED = 65536
"""Comparisons kept, since groups and epochs repeat their answers."""
READ = 4096
"""Answers of which spelling and number are kept; those of the largest numbers take 14 kB each."""
_INTEGER = re.compile(r"[-+]?\d+", re.ASCII)
_BASED = re.compile(r"(\w+)_\{?(\d+)\}?", re.ASCII)


class Grader:
    """Grades responses. Workers start with the first answer that needs one; `close`, or use it in a `with`."""

    def __init__(self, kind: GraderName = "strict", workers: int = WORKERS, deadline: float = DEADLINE) -> None:
        """Grade as `kind` says, with at most so many processes and seconds per comparison."""
        self.kind = kind
        self.workers = Workers(workers, deadline)
        self.remembered: dict[tuple[str | None, str], Outcome] = {}

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        self.workers.close()

    def grade(self, pairs: Iterable[tuple[str, str]]) -> list[Outcome]:
        """The outcome of each (response, gold answer), in order."""
        return self.compare((last_boxed(response), gold) for response, gold in pairs)

    def compare(self, pairs: Iterable[tuple[str | None, str]]) -> list[Outcome]:
        """The outcome of each (answer, gold answer), in order; an answer of None or nothing is `no_answer`."""
        pairs = list(pairs)
        known: dict[tuple[str | None, str], Outcome] = {}
        open_pairs: list[tuple[str, str]] = []
        for given, gold in dict.fromkeys(pairs):
            outcome = self.remembered.get((given, gold)) or self._at_once(given, gold)
            if outcome is not None:
                known[given, gold] = outcome
            elif given is not None:  # without an answer the outcome is known
                open_pairs.append((given, gold))
        found = self.workers.compare([(given, gold, self.kind) for given, gold in open_pairs])
        for pair, outcome in zip(open_pairs, found, strict=True):
            known[pair] = self.remembered[pair] = outcome
        while len(self.remembered) > REMEMBERED:
            del self.remembered[next(iter(self.remembered))]  # the one asked first
        return [known[pair] for pair in pairs]

    def _at_once(self, given: str | None, gold: str) -> Outcome | None:
        """The outcome where it is plain without parsing, else None."""
        if not given:
            return Outcome.NO_ANSWER
        if given == gold.strip():
            return Outcome.CORRECT
        if len(given) > MAX_ANSWER or _depth(given) > MAX_DEPTH:
            return Outcome.WRONG
        return _spelled_alike(given, gold) if self.kind == "paper" else _plainly(given, gold)


def voted_answer(response: str) -> str | None:
    r"""The answer of a response as a majority vote counts it, `\frac12` and 0.5 as one; None without a box."""
    given = last_boxed(response)
    if not given:
        return None
    return canonical(given) if len(given) <= MAX_ANSWER else given


def _spelled_alike(given: str, gold: str) -> Outcome | None:
    """What the paper's spelling and integers tell."""
    given, gold = mathd(given), mathd(gold)
    if given == gold:
        return Outcome.CORRECT
    if _INTEGER.fullmatch(given) and _INTEGER.fullmatch(gold):
        return Outcome.CORRECT if int(given) == int(gold) else Outcome.WRONG
    return None


def _plainly(given: str, gold: str) -> Outcome | None:
    """What spelling and plain numbers tell."""
    (given, our_spelling, a), (gold, their_spelling, b) = _read(given), _read(gold)
    if given == gold or our_spelling == their_spelling:
        return Outcome.CORRECT
    if a is not None and b is not None:
        return Outcome.CORRECT if numbers.same(a, b) else Outcome.WRONG
    if b is not None and numbers.is_enormous(given):
        return Outcome.WRONG
    ours, theirs = _BASED.fullmatch(given), _BASED.fullmatch(gold)
    if ours and theirs and ours[2] != theirs[2] and ours[1].isdigit() and theirs[1].isdigit():
        return Outcome.WRONG  # 16_8 and 16_9: math-verify drops the base
    return None


@lru_cache(READ)
def _read(text: str) -> tuple[str, str, numbers.Number | None]:
    """An answer normalised, as a majority vote counts it, and as the plain number that it may be."""
    text = normalised(text)
    return text, canonical(text), numbers.read(text)


def _depth(text: str) -> int:
    """How deep brackets stand within brackets."""
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest
