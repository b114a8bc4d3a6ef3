"""The process that sends records while the workflow runs, and the commands that start and end it."""

import signal
import sys
import threading
import time
from pathlib import Path

from entropy_mechanism.tracking.invocations import (
    begin_invocation,
    end_invocation,
    read_invocation,
    settle_invocation,
)
from entropy_mechanism.tracking.provenance import vanished
from entropy_mechanism.tracking.records import RUNNING
from entropy_mechanism.tracking.sync import EXPERIMENT, Sender, SyncResult, sync

_POLL_SECONDS = 0.2
_PATIENCE = 10  # times the interval between passes while the server cannot be used


def follow(
    results: Path | str,
    tracking_uri: str | None,
    experiment: str,
    invocation: str,
    parent_pid: int,
    *,
    interval: float = 3.0,
) -> SyncResult:
    """Send new records every `interval` seconds until the workflow has ended, then everything once more.

    The end is a status noted by `finish`, the disappearance of process `parent_pid` (noted as KILLED) or a
    SIGTERM to this process. A server that cannot be used costs one line on stderr and is tried again.
    """
    stop = threading.Event()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, lambda *_: stop.set())
    try:
        begin_invocation(results, invocation, parent_pid)
        sender, warned = Sender(results, tracking_uri, experiment), False
        while True:
            last = stop.is_set() or _has_ended(results, invocation)
            result = sender.sync(wait=120 if last else interval)
            if result.error is not None and (last or not warned):
                print(f"tracking: {result}; nothing is lost, sent again later", file=sys.stderr, flush=True)
            warned = result.error is not None
            if last:
                return result
            until = time.monotonic() + interval * (_PATIENCE if warned else 1)
            while time.monotonic() < until and not stop.wait(_POLL_SECONDS):
                if _has_ended(results, invocation):
                    break
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finish(
    results: Path | str,
    tracking_uri: str | None,
    experiment: str,
    invocation: str,
    status: str,
    *,
    wait: float = 60.0,
) -> SyncResult:
    """Note how the workflow ended and let its follower send the rest; without one, send it here.

    Returns after at most `wait` seconds for the follower. Raises ValueError for an unknown status.
    """
    value = end_invocation(results, invocation, status)
    if value.follower is None or vanished(value.follower):
        return sync(results, tracking_uri, experiment, wait=wait)
    deadline = time.monotonic() + wait
    while not vanished(value.follower):
        if time.monotonic() > deadline:
            pending = Sender(results, tracking_uri, experiment).pending()
            return SyncResult(pending=pending, error=f"process {value.follower['pid']} is still sending")
        time.sleep(_POLL_SECONDS)
    pending = Sender(results, tracking_uri, experiment).pending()
    return SyncResult(pending=pending, error="run `entropy-mechanism track sync` later" if pending else None)


def track_follow(
    results: Path | str,
    invocation: str,
    parent_pid: int,
    tracking_uri: str | None = None,
    experiment: str = EXPERIMENT,
) -> int:
    """Command `track follow`; exit status 1 when something is left to send."""
    result = follow(results, tracking_uri, experiment, invocation, parent_pid)
    return 1 if result.pending else 0


def track_sync(
    results: Path | str,
    tracking_uri: str | None = None,
    experiment: str = EXPERIMENT,
    resend: bool = False,
) -> int:
    """Command `track sync`: prints one line; exit status 1 when something is left to send."""
    result = sync(results, tracking_uri, experiment, resend=resend)
    print(f"tracking: {result}")
    return 1 if result.pending or result.error else 0


def track_finish(
    results: Path | str,
    invocation: str,
    status: str,
    tracking_uri: str | None = None,
    experiment: str = EXPERIMENT,
) -> int:
    """Command `track finish`: prints one line when something is left to send; never fails the workflow."""
    result = finish(results, tracking_uri, experiment, invocation, status)
    if result.pending or result.error:
        print(f"tracking: {result}", file=sys.stderr)
    return 0


def _has_ended(results: Path | str, invocation: str) -> bool:
    """Whether the workflow is over, noting KILLED when its process is gone without a word."""
    value = read_invocation(results, invocation)
    return value is None or settle_invocation(value, results).status != RUNNING
