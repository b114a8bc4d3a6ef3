"""A process that compares answers: one JSON line in (given, gold, kind), one word out. Started by `Workers`.

It can be killed at any moment, holds nothing open but its pipes, is limited in memory, and ends with its parent.
"""

import ctypes
import json
import os
import resource
import signal
import sys

READY, YES, NO, FAILED = b"ready", b"equal", b"different", b"failed"
"""The lines it writes, without their line ends."""
_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""


def main(parent: int, megabytes: int, deadline: int) -> None:
    """Answer requests until the parent closes the pipe or dies.

    `deadline` is a last resort, in seconds: where the parent was killed and the system does not pass that on, a
    comparison that goes on for longer ends the process.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they are meant for the parent, which finishes its step first
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        return
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, megabytes * 2**20)
    answers = os.dup(1)
    os.dup2(2, 1)

    from entropy_mechanism.rewards import verify

    verify.warm_up()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # parsers print what they do not understand
        os.dup2(nowhere, stream)
    os.write(answers, READY + b"\n")
    for line in sys.stdin.buffer:
        signal.alarm(deadline)  # not caught, so it ends the process even inside one long operation
        try:
            reply = YES if verify.equal(*json.loads(line)) else NO
        except MemoryError:
            os._exit(1)
        except Exception:
            reply = FAILED
        signal.alarm(0)
        os.write(answers, reply + b"\n")


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (allowed, hard))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
