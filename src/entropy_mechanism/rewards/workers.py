"""A few worker processes that compare answers, each comparison within a deadline.

A library's pool was tried (pebble 5.2.3): it kills single tasks, but is broken for good when an idle worker is
killed from outside, and takes deadlines from a clock that may be set. Workers here are programs of their own,
started with exec, so they inherit neither torch nor an open lock file.
"""

import contextlib
import json
import math
import os
import selectors
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from entropy_mechanism.rewards import worker
from entropy_mechanism.rewards.outcome import Outcome

Request = tuple[str, str, str]
"""Given answer, gold answer, kind of grader."""
MEGABYTES = 1024
"""Address space of a worker; it needs about 100."""
START_PATIENCE = 300.0
"""Seconds until a worker must be ready; sympy may come from a slow file system."""
ITEMS_PER_WORKER = 16
"""Fewer items than this do not start a further worker."""
_REPLIES = {worker.YES: Outcome.CORRECT, worker.NO: Outcome.WRONG, worker.FAILED: Outcome.ERROR}


class _Process:
    """One worker: starting, idle (`item` None) or busy, until `deadline`."""

    def __init__(self, alarm: int) -> None:
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-m", worker.__name__, *map(str, (os.getpid(), MEGABYTES, alarm))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # hashes order sympy's terms: fixed, so that every worker finds the same
            env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
            process_group=0,  # Ctrl-C is for the parent
        )
        assert self.popen.stdin is not None  # both are pipes
        assert self.popen.stdout is not None
        self.requests, self.replies = self.popen.stdin, self.popen.stdout
        self.ready = False
        self.item: int | None = None
        self.deadline = time.monotonic() + START_PATIENCE

    def send(self, item: int, request: Request, deadline: float) -> None:
        """Begin with an item; a worker that has died meanwhile is noticed when its answer is read."""
        self.item, self.deadline = item, time.monotonic() + deadline
        with contextlib.suppress(BrokenPipeError):
            self.requests.write(json.dumps(request).encode() + b"\n")

    def end(self) -> int:
        """Kill it; its exit status."""
        self.popen.kill()
        self.requests.close()
        self.replies.close()
        return self.popen.wait()


class Workers:
    """Up to `count` workers, started when first needed; a comparison ends `deadline` seconds after it began."""

    def __init__(self, count: int, deadline: float) -> None:
        if count < 1 or not deadline > 0:
            raise ValueError(
                f"found {count} workers and a deadline of {deadline} s; allowed: at least 1, above 0 s"
            )
        self.count, self.seconds = count, deadline
        self.processes: list[_Process] = []

    def compare(self, requests: Sequence[Request]) -> list[Outcome]:
        """The outcome of each request, in order: correct, wrong, timeout or error.

        A request whose worker died (killed from outside, or out of memory) is tried once more in a new one, then
        it is an error. Raises RuntimeError when workers do not start.
        """
        outcomes: dict[int, Outcome] = {}
        waiting = deque(range(len(requests)))
        deaths: Counter[int] = Counter()
        try:
            while any(process.item is not None for process in self.processes) or waiting:
                self._start(len(waiting))
                for process in self.processes:
                    if process.ready and process.item is None and waiting:
                        item = waiting.popleft()
                        process.send(item, requests[item], self.seconds)
                for process in self._readable():
                    self._read(process, outcomes, waiting, deaths)
                for process in [p for p in self.processes if self._is_late(p)]:
                    self._end(process)
                    if not process.ready:
                        raise RuntimeError(
                            f"a worker that compares answers was not ready in {START_PATIENCE:.0f} s"
                        )
                    assert process.item is not None  # an idle worker is never late
                    outcomes[process.item] = Outcome.TIMEOUT
        finally:
            for process in [p for p in self.processes if p.item is not None]:  # only after an exception
                self._end(process)
        return [outcomes[item] for item in range(len(requests))]

    def close(self) -> None:
        """End all workers."""
        while self.processes:
            self._end(self.processes[-1])

    def _start(self, waiting: int) -> None:
        busy = sum(process.item is not None for process in self.processes)
        wanted = min(self.count, busy + math.ceil(waiting / ITEMS_PER_WORKER))
        while len(self.processes) < wanted:
            self.processes.append(_Process(alarm=math.ceil(2 * self.seconds) + 10))

    def _readable(self) -> list[_Process]:
        """Workers that have written or died, after waiting until the first does or has run out of time.

        Answers are read before deadlines are looked at, so that one that came in time counts however late we are.
        """
        active = [p for p in self.processes if p.item is not None or not p.ready]
        with selectors.DefaultSelector() as selector:
            for process in active:
                selector.register(process.replies, selectors.EVENT_READ, process)
            first = min(process.deadline for process in active)
            return [key.data for key, _ in selector.select(max(0.0, first - time.monotonic()))]

    def _read(
        self, process: _Process, outcomes: dict[int, Outcome], waiting: deque[int], deaths: Counter[int]
    ) -> None:
        """Take in what a worker has written, or that it died; outcomes are by the item's place."""
        line = os.read(process.replies.fileno(), 4096).strip()
        item = process.item
        if line == worker.READY and not process.ready:
            process.ready = True
        elif line in _REPLIES and item is not None:
            outcomes[item], process.item = _REPLIES[line], None
        else:
            status = self._end(process)
            if item is None:
                raise RuntimeError(
                    f"a worker that compares answers ended with status {status} before it was ready; its message "
                    f"stands above, or try: python -m {worker.__name__} $$ {MEGABYTES} 60"
                )
            deaths[item] += 1
            if deaths[item] < 2:
                waiting.appendleft(item)
            else:
                outcomes[item] = Outcome.ERROR

    def _is_late(self, process: _Process) -> bool:
        return (process.item is not None or not process.ready) and time.monotonic() >= process.deadline

    def _end(self, process: _Process) -> int:
        self.processes.remove(process)
        return process.end()
