r"""Generated programming problems: a function in words, its tests, and a teacher whose programs are often wrong.

A problem is text such as `add 3, times 4`, its solution a Python function that does these operations in order:

    def f(x):
     x=x+3
     x=4*x
     return x

Every operation has two spellings that do the same, and a wrong operation may do no harm, so a program is graded
by running it: on numbers drawn for the problem, against values computed here without running any Python.

The teacher is what the base policy imitates. It knows a table of 160 entries (the operation before, the operation,
its operand); every entry has its own reliability and its own few wrong operations, as in `data.arithmetic`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import TYPE_CHECKING

import numpy as np

from entropy_mechanism.data.arithmetic import SHARES, split_of
from entropy_mechanism.data.problems import Problem

if TYPE_CHECKING:
    from entropy_mechanism.config import ProgramSet, Teacher

SPELLINGS = {
    "add": ("x+{0}", "{0}+x"),
    "minus": ("x-{0}", "-{0}+x"),
    "times": ("x*{0}", "{0}*x"),
    "modulo": ("x%{0}", "divmod(x,{0})[1]"),
}
"""Operations by name, and how each is written in Python."""
OPERANDS = range(2, 10)
HEAD, LINE, TAIL = "def f(x):", "\n x=", "\n return x"
"""The parts of a solution around the operations."""
SEPARATOR = ", "
TESTS = 8
"""Numbers on which a program is run."""

_STEPS = [f"{name} {operand}" for name in SPELLINGS for operand in OPERANDS]
_STATEMENTS = [
    LINE + spelling.format(operand) for name in SPELLINGS for operand in OPERANDS for spelling in SPELLINGS[name]
]
WORDS = [*_STEPS, SEPARATOR, HEAD, *_STATEMENTS, TAIL]
"""The parts of the language of problems and solutions."""


def parse(problem: str) -> list[tuple[str, int]]:
    """Split `add 3, times 4` into `[("add", 3), ("times", 4)]`. Raises ValueError for any other text."""
    steps = problem.split(SEPARATOR)
    if not set(steps) <= set(_STEPS):
        raise ValueError(f"{problem!r} is not a list of operations such as add 3, times 4")
    return [(name, int(operand)) for name, operand in (step.split() for step in steps)]


def value(problem: str, x: int) -> int:
    """What the function of a problem gives for `x`."""
    for name, operand in parse(problem):
        if name == "add":
            x += operand
        elif name == "minus":
            x -= operand
        elif name == "times":
            x *= operand
        else:
            x %= operand
    return x


def tests(problem: str) -> str:
    """Tests as JSON text for `rewards.code`: eight numbers between -99 and 99 that follow from the problem."""
    digest = hashlib.blake2b(problem.encode(), digest_size=8).digest()
    numbers = np.random.default_rng(list(digest)).choice(np.arange(-99, 100), TESTS, replace=False).tolist()
    outputs = [value(problem, x) for x in numbers]
    return json.dumps({"kind": "call", "function": "f", "inputs": [[x] for x in numbers], "outputs": outputs})


def generate(settings: ProgramSet, source: str = "programs") -> list[Problem]:
    """`settings.problems` different problems of one split, from `settings.seed`, in random order.

    The numbers of operations in the inclusive range are equally frequent, except that short problems which do not
    exist in that number are replaced by longer ones. Raises ValueError when there are fewer than asked for.
    """
    low, high = settings.operations
    rng = np.random.default_rng([settings.seed, low, high])
    texts: list[str] = []
    for length in range(low, high + 1):
        wanted = (settings.problems - len(texts)) // (high + 1 - length)
        texts += _draw(length, settings.split, wanted, rng)
    if len(texts) < settings.problems:
        raise ValueError(
            f"{settings.problems} programming problems asked for, but only {len(texts)} exist in split "
            f"{settings.split!r} with {low} to {high} operations; ask for fewer or allow more operations"
        )
    return [
        Problem(
            id=f"{source}:{texts[i]}",
            source=source,
            problem=texts[i],
            answer="",
            metadata={"operations": texts[i].count(SEPARATOR) + 1, "split": settings.split},
            tests=tests(texts[i]),
        )
        for i in rng.permutation(len(texts))
    ]


def _draw(length: int, split: str, wanted: int, rng: np.random.Generator) -> list[str]:
    """At most `wanted` different problems of one length and split; fewer only when no more exist."""
    existing = len(_STEPS) ** length
    if wanted > 0.25 * SHARES[split] * existing:
        # Rejection would stall when nearly all are wanted; such small spaces can be written down.
        every = (SEPARATOR.join(steps) for steps in itertools.product(_STEPS, repeat=length))
        candidates = [text for text in every if split_of(text) == split]
        return [candidates[i] for i in rng.permutation(len(candidates))[:wanted]]
    found: dict[str, None] = {}  # a dict keeps the order of drawing, a set would not
    while len(found) < wanted:
        for row in rng.integers(len(_STEPS), size=(wanted, length)).tolist():
            text = SEPARATOR.join(_STEPS[step] for step in row)
            if len(found) < wanted and split_of(text) == split:
                found[text] = None
    return list(found)


class UnreliableProgrammer:
    """Writes programs whose operations are right only as often as its table of reliabilities says."""

    def __init__(self, settings: Teacher) -> None:
        """Draw the table, as `data.arithmetic.UnreliableTeacher` does.

        `probabilities[before, step, statement]` sums to one over the statements; `before` is the place of the
        operation before in `SPELLINGS`, or the number of operations at the beginning. The spellings of one
        operation are equally frequent.
        """
        weights = np.asarray(settings.distractors, float)
        rng = np.random.default_rng(settings.seed)
        spellings = 2
        self.probabilities = np.zeros((len(SPELLINGS) + 1, len(_STEPS), len(_STATEMENTS)))
        ranks = rng.permutation(self.probabilities[..., 0].size).reshape(self.probabilities.shape[:-1])
        is_unreliable = ranks < round(settings.unreliable_share * ranks.size)
        for before, step in np.ndindex(is_unreliable.shape):
            low = is_unreliable[before, step]
            reliability = rng.uniform(*(settings.unreliable if low else settings.reliable))
            wrong = rng.permutation([other for other in range(len(_STEPS)) if other != step])[: len(weights)]
            row = np.zeros(len(_STEPS))
            row[step] = reliability
            row[wrong] = (1 - reliability) * weights / weights.sum()
            self.probabilities[before, step] = np.repeat(row / spellings, spellings)

    def write_solution(self, problem: str, rng: np.random.Generator) -> str:
        """One sampled program."""
        lines = [_STATEMENTS[rng.choice(len(_STATEMENTS), p=row)] for row in self._rows(problem)]
        return "".join([HEAD, *lines, TAIL])

    def reference(self, problem: str) -> tuple[float, float]:
        """Chance that all operations of a program are the ones asked for, and entropy of a program in nats.

        The chance that it passes the tests is a little higher, since some errors have no consequence.
        """
        right, entropy = 1.0, 0.0
        for row, (name, operand) in zip(self._rows(problem), parse(problem), strict=True):
            step = _STEPS.index(f"{name} {operand}")
            right *= float(row[2 * step : 2 * step + 2].sum())
            entropy -= float((row[row > 0] * np.log(row[row > 0])).sum())
        return right, entropy

    def _rows(self, problem: str) -> list[np.ndarray]:
        """The distribution of each statement of a program."""
        steps = parse(problem)
        names = list(SPELLINGS)
        befores = [len(names), *(names.index(name) for name, _ in steps)]
        return [
            self.probabilities[before, _STEPS.index(f"{name} {operand}")]
            for before, (name, operand) in zip(befores, steps, strict=False)
        ]
