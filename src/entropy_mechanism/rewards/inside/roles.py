"""What a process in the sandbox may be: a program that prints, one that is called, tests and what they test.

Descriptors: 0 standard input, 1 standard output, 3 the payload (JSON), 4 the report (JSON, one object a line),
5 the link between tests and solution. Standard error is not kept.
"""

import atexit
import builtins
import contextlib
import functools
import gc
import io
import json
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from entropy_mechanism.rewards.inside.remote import Peer

PAYLOAD, REPORT, LINK = 3, 4, 5
RESERVE = 64 << 20
"""Bytes beyond the limit of memory that are kept to report that it was reached."""
_PLAIN = (bool, int, float, str, type(None))


def run(role: str) -> None:
    """Play a role to its end, then leave as Python leaves: threads joined, output flushed."""
    with open(PAYLOAD, encoding="utf-8", errors="surrogatepass") as handle:
        payload = json.load(handle)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    sys.argv = ["solution.py"]
    try:
        ROLES[role](**payload)
        threading._shutdown()  # type: ignore[attr-defined]  # Python's own way to leave, without a public name
        atexit._run_exitfuncs()
    except SystemExit:
        pass
    except BaseException as error:
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))  # what filled the memory is still there
        report(error=describe(error))
    sys.stdout.flush()
    report(left=True)
    os._exit(0)


def report(**facts: Any) -> None:
    """Send one line to the grader."""
    line = json.dumps(facts).encode() + b"\n"
    while line:
        line = line[os.write(REPORT, line) :]


def describe(error: BaseException) -> str:
    """An exception in one short line."""
    try:
        text = " ".join(str(error).split())[:200]
    except BaseException:
        text = ""
    return type(error).__name__ + (f": {text}" if text else "")


def program(code: str) -> None:
    """Run a program that reads its standard input and prints."""
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(code, "solution.py", "exec"), module.__dict__)


def called(code: str, function: str, calls: list[list[Any]]) -> None:
    """Define a function by running the code, call it with each list of arguments, report what it returns.

    The grader does the comparison, from a value that has come as JSON: the process does not know what is expected.
    """
    module = _module(code)
    target = getattr(module, function, None)
    if target is None and hasattr(module, "Solution"):
        target = getattr(module.Solution(), function, None)
    if target is None:
        report(missing=function)
        return
    for arguments in calls:
        value = target(*arguments)
        try:
            plain = _plain(value)
        except (TypeError, RecursionError):
            report(unusable=type(value).__name__)
            return
        report(value=plain)


def solution(code: str) -> None:
    """Hold the solution that tests in another process ask for."""
    peer = Peer(socket.socket(fileno=LINK), guarded=False)
    builtins.input = lambda prompt="": peer.ask("input", str(prompt))
    failure: Exception | None = None
    try:
        module = _module(code)
    except Exception as error:
        module, failure = ModuleType("solution"), error
    except BaseException as error:
        module, failure = ModuleType("solution"), RuntimeError(f"{type(error).__name__} was raised")
    peer.offer(module, failure)


def tests(code: str) -> None:
    """Run pytest on test code whose `import solution` reaches the other process.

    The report holds how many tests passed and the name of the first that did not.
    """
    peer = Peer(socket.socket(fileno=LINK), guarded=True)
    sys.modules["solution"] = peer.module("solution")
    with open("test_solution.py", "w", encoding="utf-8", errors="surrogatepass") as handle:
        handle.write(code)
    collected = _Collected()
    status = _pytest("test_solution.py", collected)
    report(passed=collected.passed, failed=collected.failed, status=status)


@functools.cache
def prepare_tests() -> None:
    """Let pytest load all that it needs: once in the server rather than in every process that runs tests."""
    _pytest("/nothing", _Collected())
    gc.freeze()  # what is shared with the processes is not touched by a collection, and so not copied


def _pytest(path: str, plugin: object) -> int:
    """Run pytest on a file, silently; its exit status."""
    import pytest

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = ["-x", "-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:faulthandler", "--assert=plain"]
    options += ["-c", os.devnull, "--rootdir=.", "--import-mode=importlib", "--capture=sys", path]
    with contextlib.redirect_stdout(io.StringIO()):
        return int(pytest.main(options, plugins=[plugin]))


class _Collected:
    """A pytest plugin that counts."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: str | None = None

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed += report.when == "call" and report.passed
        if report.failed and self.failed is None:
            self.failed = report.nodeid.rpartition("::")[2]

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and self.failed is None:
            self.failed = "the import of the tests"


def _module(code: str) -> ModuleType:
    """The code as module `solution`."""
    module = ModuleType("solution")
    sys.modules["solution"] = module
    exec(compile(code, "solution.py", "exec"), module.__dict__)
    return module


def _plain(value: Any) -> Any:
    """A value as JSON holds it: tuples are lists, keys are text. Raises TypeError for anything else."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_key(key): _plain(item) for key, item in value.items()}
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return _plain(value.tolist())
    raise TypeError(type(value).__name__)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if type(key) in _PLAIN:
        return json.dumps(key)
    raise TypeError(type(key).__name__)


ROLES: dict[str, Callable[..., None]] = {
    "program": program,
    "called": called,
    "solution": solution,
    "tests": tests,
}
