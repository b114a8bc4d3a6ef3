"""One grader for all problems: by their tests where they have some, else by their answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from entropy_mechanism.rewards.code import CodeGrader, Verdict
from entropy_mechanism.rewards.math import grade


class Gradable(Protocol):
    """What a problem is graded by."""

    @property
    def answer(self) -> str:
        """The reference answer."""

    @property
    def tests(self) -> str:
        """Tests as JSON text; empty for a problem that is graded by its answer."""


class Grader:
    """Grades responses of any kind; a sandbox is started when the first program is to be run."""

    def __init__(self) -> None:
        self._code = CodeGrader()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *error: object) -> None:
        self._code.close()

    def grade_all(self, responses: Sequence[str], problems: Sequence[Gradable]) -> list[Verdict]:
        """Grade each response by the problem beside it."""
        verdicts: list[Verdict | None] = [None] * len(responses)
        pairs = list(zip(responses, problems, strict=True))
        tested = [n for n, (_, problem) in enumerate(pairs) if problem.tests]
        graded = self._code.grade_all([pairs[n][0] for n in tested], [pairs[n][1].tests for n in tested])
        for n, verdict in zip(tested, graded, strict=True):
            verdicts[n] = verdict
        return [
            Verdict(grade(response, problem.answer)) if verdict is None else verdict
            for verdict, (response, problem) in zip(verdicts, pairs, strict=True)
        ]
