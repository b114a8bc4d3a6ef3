"""One grader for all problems: by their tests where they have some, else by their answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from entropy_mechanism.config import GraderName
from entropy_mechanism.rewards import math
from entropy_mechanism.rewards.code import CodeGrader, Verdict


class Gradable(Protocol):
    """What a problem is graded by."""

    @property
    def answer(self) -> str:
        """The reference answer."""

    @property
    def tests(self) -> str:
        """Tests as JSON text; empty for a problem that is graded by its answer."""


class Grader:
    """Grades responses of any kind; processes are started with the first response that needs one."""

    def __init__(self, kind: GraderName = "strict") -> None:
        """Compare answers as `kind` says."""
        self._math, self._code = math.Grader(kind), CodeGrader()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *error: object) -> None:
        self._math.close()
        self._code.close()

    def grade_all(self, responses: Sequence[str], problems: Sequence[Gradable]) -> list[Verdict]:
        """Grade each response by the problem beside it."""
        pairs = list(zip(responses, problems, strict=True))
        tested = [(response, problem.tests) for response, problem in pairs if problem.tests]
        answered = [(response, problem.answer) for response, problem in pairs if not problem.tests]
        by_tests = iter(self._code.grade_all([pair[0] for pair in tested], [pair[1] for pair in tested]))
        by_answer = iter(self._math.grade(answered))
        return [next(by_tests) if problem.tests else Verdict(next(by_answer)) for _, problem in pairs]
