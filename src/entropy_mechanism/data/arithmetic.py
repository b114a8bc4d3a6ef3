"""Generated arithmetic: chains of single-digit additions and subtractions modulo 10, and an unreliable teacher.

A problem is text such as `7+5-3`; its answer is the value modulo 10, here `9`. A solution writes the running
value after every step and ends in a box: `=7+5=2-3=9\\boxed{9}`.

The teacher is what the base policy imitates. It knows a table of 200 entries (value, operation, operand); every
entry has its own reliability, the chance that the teacher writes the right result, and its own few wrong results
(distractors) that share the remainder. Where the reliability is low, the teacher's favourite is wrong, and only a
policy that explores finds the right result.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from entropy_mechanism.data.problems import Problem

if TYPE_CHECKING:
    from entropy_mechanism.config import ArithmeticSet, Teacher

OPERATIONS = "+-"
SHARES = {"train": 0.70, "validation": 0.10, "test": 0.20}
"""The splits and the share of all problems that belongs to each."""

_STEPS = [operation + str(operand) for operation in OPERATIONS for operand in range(10)]


def answer(problem: str) -> int:
    """The value of a problem's text modulo 10, from left to right. Raises ValueError when it is no chain."""
    value, steps = parse(problem)
    for operation, operand in steps:
        value += operand if operation == "+" else -operand
    return value % 10


def parse(problem: str) -> tuple[int, list[tuple[str, int]]]:
    """Split `7+5-3` into the first digit and its steps: `(7, [("+", 5), ("-", 3)])`; ValueError for no chain."""
    digits, operations = problem[0::2], problem[1::2]
    well_formed = len(problem) % 2 == 1 and digits.isascii() and digits.isdigit()
    if not well_formed or not set(operations) <= set(OPERATIONS):
        raise ValueError(f"{problem!r} is not a chain of single-digit additions and subtractions such as 7+5-3")
    return int(digits[0]), [(operation, int(d)) for operation, d in zip(operations, digits[1:], strict=True)]


def split_of(problem: str) -> str:
    """The split that a problem's text belongs to, decided by a hash of the text and nothing else.

    So the splits are disjoint, whatever sets are drawn from them, in whatever order and with whatever seed.
    """
    digest = hashlib.blake2b(problem.encode(), digest_size=8).digest()
    position = int.from_bytes(digest, "big") / 2**64
    for split, share in SHARES.items():
        if position < share:
            return split
        position -= share
    return list(SHARES)[-1]  # shares add up to one only up to rounding


def generate(settings: ArithmeticSet, source: str = "arithmetic") -> list[Problem]:
    """`settings.problems` different problems of one split, from `settings.seed`, in random order.

    The numbers of operands in the inclusive range are equally frequent, except that short chains which do not
    exist in that number are replaced by longer ones. Two sets are disjoint unless `overlaps` says otherwise; none
    depends on which other sets exist. Raises ValueError when there are fewer problems than asked for.
    """
    low, high = settings.operands
    rng = np.random.default_rng([settings.seed, low, high])
    texts: list[str] = []
    for operands in range(low, high + 1):
        wanted = (settings.problems - len(texts)) // (high + 1 - operands)
        texts += _draw(operands, settings.split, wanted, rng)
    if len(texts) < settings.problems:
        raise ValueError(
            f"{settings.problems} arithmetic problems asked for, but only {len(texts)} exist in split "
            f"{settings.split!r} with {low} to {high} operands; ask for fewer or allow more operands"
        )
    return [
        Problem(
            id=f"{source}:{texts[i]}",
            source=source,
            problem=texts[i],
            answer=str(answer(texts[i])),
            metadata={"operands": len(texts[i]) // 2 + 1, "split": settings.split},
        )
        for i in rng.permutation(len(texts))
    ]


def _draw(operands: int, split: str, wanted: int, rng: np.random.Generator) -> list[str]:
    """At most `wanted` different problems of one length and split; fewer only when no more exist."""
    existing = 10 * len(_STEPS) ** (operands - 1)
    if wanted > 0.25 * SHARES[split] * existing:
        # Rejection would stall when nearly all are wanted; such small spaces can be written down.
        candidates = [text for text in _all_chains(operands) if split_of(text) == split]
        return [candidates[i] for i in rng.permutation(len(candidates))[:wanted]]
    found: dict[str, None] = {}  # a dict keeps the order of drawing, a set would not
    while len(found) < wanted:
        first = rng.integers(10, size=wanted)
        steps = rng.integers(len(_STEPS), size=(wanted, operands - 1))
        for digit, row in zip(first.tolist(), steps.tolist(), strict=True):
            text = str(digit) + "".join(_STEPS[step] for step in row)
            if len(found) < wanted and split_of(text) == split:
                found[text] = None
    return list(found)


def _all_chains(operands: int) -> Iterator[str]:
    for first in range(10):
        for steps in itertools.product(_STEPS, repeat=operands - 1):
            yield str(first) + "".join(steps)


class UnreliableTeacher:
    """Writes solutions that are right only as often as its table of reliabilities says."""

    def __init__(self, settings: Teacher):
        """Draw the table; `probabilities[value, operation, operand, result]` sums to one over the results.

        A share `unreliable_share` of the entries, randomly chosen, has a reliability uniform in `unreliable`,
        the others one uniform in `reliable`. What remains is shared by `len(distractors)` different wrong
        results in proportion to the weights `distractors`.
        """
        weights = np.asarray(settings.distractors, float)
        if not (1 <= len(weights) <= 9 and (weights > 0).all()):
            raise ValueError(f"distractors {settings.distractors} must be 1 to 9 positive weights")
        rng = np.random.default_rng(settings.seed)
        self.probabilities = np.zeros((10, len(OPERATIONS), 10, 10))
        ranks = rng.permutation(self.probabilities[..., 0].size).reshape(self.probabilities.shape[:-1])
        is_unreliable = ranks < round(settings.unreliable_share * ranks.size)
        for value, (o, operation), operand in itertools.product(range(10), enumerate(OPERATIONS), range(10)):
            is_low = is_unreliable[value, o, operand]
            reliability = rng.uniform(*(settings.unreliable if is_low else settings.reliable))
            right = (value + operand if operation == "+" else value - operand) % 10
            wrong = rng.permutation([digit for digit in range(10) if digit != right])[: len(weights)]
            row = self.probabilities[value, o, operand]
            row[right] = reliability
            row[wrong] = (1 - reliability) * weights / weights.sum()
        cumulative = np.cumsum(self.probabilities, axis=-1)
        # The division makes the last value exactly one, so that no draw falls behind the last possible result.
        self._cumulative = (cumulative / cumulative[..., -1:]).tolist()

    def write_solution(self, problem: str, rng: np.random.Generator) -> str:
        """One sampled solution; an error in one step is carried on, as the running value is what is written."""
        value, steps = parse(problem)
        pieces = [f"={value}"]
        for (operation, operand), uniform in zip(steps, rng.random(len(steps)).tolist(), strict=True):
            cumulative = self._cumulative[value][OPERATIONS.index(operation)][operand]
            value = bisect.bisect_right(cumulative, uniform)
            pieces.append(f"{operation}{operand}={value}")
        return "".join(pieces) + f"\\boxed{{{value}}}"

    def reference(self, problem: str) -> tuple[float, float]:
        """Chance that a solution ends right, and the entropy of a whole solution in nats."""
        outcome, entropy = self.outcome(problem)
        return float(outcome[answer(problem)]), entropy

    def outcome(self, problem: str) -> tuple[np.ndarray, float]:
        """Exact distribution of the teacher's final digit [10], and the entropy of a whole solution in nats.

        What a policy reaches that imitates the teacher perfectly: the reference for a warm-up.
        """
        first, steps = parse(problem)
        state = np.eye(10)[first]
        entropy = 0.0
        for operation, operand in steps:
            table = self.probabilities[:, OPERATIONS.index(operation), operand]
            logs = np.log(table, out=np.zeros_like(table), where=table > 0)
            entropy -= float(state @ (table * logs).sum(axis=-1))
            state = state @ table
        return state, entropy
