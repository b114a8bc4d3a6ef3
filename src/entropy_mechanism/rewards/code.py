"""Grading a program by running it: the last code block of a response against the tests of its problem.

Tests are JSON text in one of three forms:

- `{"kind": "stdio", "inputs": […], "outputs": […]}`: what the program reads and what it has to print, each a text
  or a list of lines. With `"fn_name"`, as Eurus-2-RL has it, lists of arguments and what the function returns.
- `{"kind": "call", "function": name, "inputs": [[argument, …], …], "outputs": […]}`: arguments and return values.
- `{"kind": "pytest", "code": "…"}`: tests that import the program as `solution`, as KodCode has them.

What is expected never reaches the process in which a program runs: outputs and return values are compared here,
and pytest runs in a process of its own (`rewards.inside.remote`).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import math
import os
import queue
import re
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rewards.sandbox import Ended, Job, Limits, Sandbox

MAX_TESTS = 32
"""Tests of a problem that are run at most, the first ones; all of them must pass."""
REMEMBERED = 100_000
"""Verdicts that a grader keeps, the newest."""
_FENCED = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_PYTHON = ("python", "python3", "py")
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9
"""Tolerances between two returned numbers of which one is no integer."""


@dataclass(frozen=True)
class Verdict:
    """The grade of one response, and why."""

    outcome: Outcome
    reason: str = ""
    """One line for a person; empty for a right program."""


@dataclass(frozen=True)
class Tests:
    """The tests of one problem, checked."""

    kind: str
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    function: str = ""
    code: str = ""
    wrapped: bool = False
    """Whether an expected return value may also stand as the only item of a list, as in Eurus-2-RL."""


def extract_code(response: str) -> str | None:
    """The program of a response, or None.

    That is the last closed block between fences of three backticks that is marked as Python; else the last closed
    block without a mark; else, when there are no fences at all, the whole text if Python can parse it.
    """
    blocks = _FENCED.findall(response)
    for marks in (_PYTHON, ("",)):
        for mark, code in reversed(blocks):
            if mark.lower() in marks:
                return code if code.strip() else None
    if "```" in response or not response.strip():
        return None
    code = response.strip()
    return code if _parses(code) else None


@functools.lru_cache(maxsize=1024)
def read_tests(text: str) -> Tests:
    """Tests from their JSON text. Raises ValueError saying what is wrong with them."""
    try:
        raw = json.loads(text)
        kind = raw["kind"]
        if kind == "pytest":
            tests = Tests(kind, code=raw["code"])
            faulty = not isinstance(tests.code, str) or "def test" not in tests.code
        elif kind not in ("stdio", "call"):
            raise ValueError(f"kind is {kind!r}; allowed: stdio, call, pytest")
        else:
            name = raw.get("fn_name") if kind == "stdio" else raw["function"]
            tests = Tests(
                "call" if name else kind, raw["inputs"], raw["outputs"], name or "", wrapped=kind == "stdio"
            )
            faulty = not tests.inputs or len(tests.inputs) != len(tests.outputs)
            if tests.kind == "call":
                faulty |= not all(isinstance(arguments, list) for arguments in tests.inputs)
            else:
                _ = [_text(value) for value in (*tests.inputs, *tests.outputs)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"tests of a problem cannot be read ({type(error).__name__}: {error}): {text[:200]}"
        ) from None
    if faulty:
        raise ValueError(
            f"tests of a problem must be stdio or call with equally many inputs and outputs, or pytest with test "
            f"functions; found {text[:200]}"
        )
    return tests


class CodeGrader:
    """Grades programs on a few sandboxes in parallel; they start with the first program, `close` ends them."""

    def __init__(
        self, limits: Limits | None = None, max_tests: int = MAX_TESTS, workers: int | None = None
    ) -> None:
        """`workers` sandboxes at most, by default as many as there are processors for this process, and eight."""
        self.limits, self.max_tests = limits or Limits(), max_tests
        self.workers = workers or min(8, len(os.sched_getaffinity(0)))
        self._sandboxes: list[Sandbox] = []
        self._known: dict[bytes, Verdict] = {}

    def __enter__(self) -> CodeGrader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the sandboxes."""
        for sandbox in self._sandboxes:
            sandbox.close()
        self._sandboxes = []

    def grade_all(self, responses: Sequence[str], tests: Sequence[str]) -> list[Verdict]:
        """Grade each response by the tests beside it, given as JSON text.

        Equal programs with equal tests are run once, also among several calls: a policy repeats itself more the
        less entropy it has. What ended by force or an error is run again, since it may depend on the machine.
        Raises ValueError for tests that cannot be read and `SandboxError` where programs cannot be run.
        """
        checked = {text: read_tests(text) for text in tests}
        programs = [extract_code(response) for response in responses]
        items = list(zip(programs, tests, strict=True))
        runnable = dict.fromkeys((program, text) for program, text in items if program is not None)
        keys = {item: _digest(*item) for item in runnable}
        distinct = [item for item, key in keys.items() if key not in self._known]
        wanted = min(self.workers, len(distinct))
        # Started here and not in a thread: a sandbox ends with the thread that started it.
        while len(self._sandboxes) < wanted:
            self._sandboxes.append(Sandbox(self.limits))
        free: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
        for sandbox in self._sandboxes:
            free.put(sandbox)

        def grade_one(item: tuple[str, str]) -> Verdict:
            sandbox = free.get()
            try:
                return grade_program(sandbox, item[0], checked[item[1]], self.max_tests)
            finally:
                free.put(sandbox)

        if wanted > 1:
            with ThreadPoolExecutor(wanted) as pool:
                verdicts = dict(zip(distinct, pool.map(grade_one, distinct), strict=True))
        else:
            verdicts = {item: grade_one(item) for item in distinct}
        found: dict[tuple[str | None, str], Verdict] = {
            item: verdicts.get(item) or self._known[key] for item, key in keys.items()
        }
        self._remember({keys[item]: verdict for item, verdict in verdicts.items()})
        return [found.get(item, Verdict(Outcome.NO_ANSWER, "no code block")) for item in items]

    def _remember(self, verdicts: dict[bytes, Verdict]) -> None:
        lasting = (Outcome.CORRECT, Outcome.WRONG)
        self._known |= {key: verdict for key, verdict in verdicts.items() if verdict.outcome in lasting}
        for key in list(self._known)[: max(0, len(self._known) - REMEMBERED)]:
            del self._known[key]


def _digest(program: str, tests: str) -> bytes:
    """Identifies a program and its tests; a few bytes, where both may be long."""
    text = f"{len(program)} {program}{tests}"
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def grade_program(sandbox: Sandbox, program: str, tests: Tests, max_tests: int = MAX_TESTS) -> Verdict:
    """Run one program against the first `max_tests` tests, in order, up to the first that it fails."""
    program = program.encode(errors="replace").decode()
    if tests.kind == "pytest":
        solution, tested = sandbox.run(Job("solution", {"code": program}), Job("tests", {"code": tests.code}))
        return _pytest_verdict(solution, tested, sandbox.limits)
    inputs, outputs = tests.inputs[:max_tests], tests.outputs[:max_tests]
    if tests.kind == "call":
        payload = {"code": program, "function": tests.function, "calls": inputs}
        (ended,) = sandbox.run(Job("called", payload))
        return _call_verdict(ended, sandbox.limits, tests, outputs)
    for n, (given, expected) in enumerate(zip(inputs, outputs, strict=True), start=1):
        (ended,) = sandbox.run(Job("program", {"code": program}, _text(given)))
        failure = _failure(ended, sandbox.limits, f" in test {n}")
        if failure is not None:
            return failure
        if not same_lines(ended.stdout.decode(errors="replace"), _text(expected)):
            return _wrong(f"wrong output in test {n}")
    return Verdict(Outcome.CORRECT)


def same_lines(printed: str, expected: str) -> bool:
    """Whether two texts have the same words in the same lines; blank lines at the end do not count."""

    def lines(text: str) -> list[list[str]]:
        words = [line.split() for line in text.splitlines()]
        while words and not words[-1]:
            words.pop()
        return words

    return lines(printed) == lines(expected)


def same_value(value: Any, expected: Any) -> bool:
    """Whether two JSON values are equal; numbers of which one is no integer up to 1e-6 of their size."""
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(same_value, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(same_value(value[key], expected[key]) for key in value)
    if isinstance(value, (int, float)) and isinstance(expected, (int, float)):
        if isinstance(value, float) or isinstance(expected, float):
            try:
                near = math.isclose(value, expected, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
            except OverflowError:
                return False
            return near or (value != value and expected != expected)
        return value == expected
    return type(value) is type(expected) and value == expected


def _call_verdict(ended: Ended, limits: Limits, tests: Tests, outputs: list[Any]) -> Verdict:
    """Compare what came back with what is expected, in order; what ended the process counts after that."""
    returned = [facts["value"] for facts in ended.reports if "value" in facts]
    for n, (value, expected) in enumerate(zip(returned, outputs, strict=False), start=1):
        accepted = [expected]
        if tests.wrapped and isinstance(expected, list) and len(expected) == 1:
            accepted.append(expected[0])
        try:
            right = any(same_value(value, one) for one in accepted)
        except RecursionError:
            right = False
        if not right:
            return _wrong(f"wrong result in test {n}")
    where = f" in test {len(returned) + 1}"
    failure = _failure(ended, limits, where if len(returned) < len(outputs) else "")
    if failure is not None:
        return failure
    if "missing" in ended.report:
        return _wrong(f"no function {tests.function}")
    if "unusable" in ended.report:
        return _wrong(f"returned a {ended.report['unusable']}{where}")
    if len(returned) < len(outputs):
        return Verdict(Outcome.ERROR, f"ended before the function returned{where}")
    return Verdict(Outcome.CORRECT)


def _pytest_verdict(solution: Ended, tests: Ended, limits: Limits) -> Verdict:
    report = tests.report
    failed = report.get("failed")
    if failed and solution.killed != "leader":  # then the tests failed since the solution was not there any more
        failure = _failure(solution, limits, f" in {failed}")
        if failure is not None:
            return failure
    failure = _failure(tests, limits, "")
    if failure is not None:
        return failure
    if failed:
        return _wrong(f"failed {failed}")
    if report.get("status") == 0 and report.get("passed"):
        return Verdict(Outcome.CORRECT)
    return Verdict(Outcome.ERROR, "no test was run")


def _failure(ended: Ended, limits: Limits, where: str) -> Verdict | None:
    """The verdict on a process that did not end by itself, or with an exception; None for any other."""
    report = ended.report
    if "setup" in report:
        return Verdict(Outcome.ERROR, f"the sandbox failed: {report['setup']}")
    if ended.killed == "wall time":
        return Verdict(Outcome.TIMEOUT, f"killed: wall time of {limits.wall:g} s{where}")
    if ended.killed:
        return Verdict(Outcome.ERROR, f"killed: {ended.killed} of more than {limits.output} bytes{where}")
    # For the limit the kernel counts in ticks, which on a busy machine is more than the time used; nothing else
    # kills a program that has used half of it, save a machine without memory.
    if (
        os.WIFSIGNALED(ended.status)
        and os.WTERMSIG(ended.status) == signal.SIGKILL
        and ended.cpu >= limits.cpu / 2
    ):
        return Verdict(Outcome.TIMEOUT, f"killed: processor time of {limits.cpu} s{where}")
    if os.WIFSIGNALED(ended.status):
        name = signal.Signals(os.WTERMSIG(ended.status)).name
        return Verdict(Outcome.ERROR, f"killed: {name}{where}")
    error = report.get("error")
    if isinstance(error, str):
        reason = "memory" if error.startswith("MemoryError") else error
        return Verdict(Outcome.ERROR, f"{reason}{where}")
    return None


def _wrong(reason: str) -> Verdict:
    return Verdict(Outcome.WRONG, reason)


def _text(value: Any) -> str:
    """Input or output as one text. Raises TypeError when it is neither text nor a list of lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise TypeError(f"found {value!r:.60}; allowed: text, or a list of lines")
    return value


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
