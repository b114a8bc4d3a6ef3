"""Starts the ranks of one training as processes of this machine, and stops them together.

A rank ends with its launcher, however that ends. Signals reach the ranks through the launcher alone, as SIGUSR1,
so that a Ctrl-C or a cluster's SIGTERM, which all processes get, does not count twice.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from entropy_mechanism.stages.stopping import INTERRUPTED, RELAYED, StopRequest

GRACE = 20.0
"""Seconds that the other ranks get once one has ended with an error; they wait for it in vain."""
_LAUNCHER = "ENTROPY_MECHANISM_LAUNCHER"
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def launch(command: Sequence[str], ranks: int, stop: StopRequest, lock: int) -> None:
    """Run `python -m entropy_mechanism` with the arguments `command` once per rank and wait for all to end.

    The ranks inherit the descriptor `lock`, so that a lock on it ends with the last of them.
    Raises SystemExit with 75 when the ranks stopped in time, and ChildProcessError when one of them failed.
    """
    shared = {
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        _LAUNCHER: str(os.getpid()),
    }
    # A rank inherits the block and lifts it once it listens; until then a signal would end it.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "entropy_mechanism", *command],
            env={"OMP_NUM_THREADS": "1"} | os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            start_new_session=True,
            pass_fds=(lock,),
        )
        for rank in range(ranks)
    ]
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    try:
        failed = _wait(processes, stop)
    finally:
        for process in processes:
            process.kill()
    if failed is not None:
        code = processes[failed].returncode
        raise ChildProcessError(
            f"rank {failed} of {ranks} ended with status {code}; see its message above, if any"
        )
    if any(process.returncode == INTERRUPTED for process in processes):
        raise SystemExit(INTERRUPTED)


def follow_launcher() -> None:
    """In a rank: end when the launcher ends."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != int(os.environ[_LAUNCHER]):  # it ended before the line above took effect
        os._exit(1)


def _wait(processes: list[subprocess.Popen[bytes]], stop: StopRequest) -> int | None:
    """The rank that failed first, or None, when all have ended; one that was killed is before one that noticed."""
    told, failed, deadline = False, None, 0.0
    while any(process.poll() is None for process in processes):
        if stop.reason and not told:
            told = True
            for process in processes:
                process.send_signal(signal.SIGUSR1)
        if failed is None:
            failed, deadline = _first_failure(processes), time.monotonic() + GRACE
        elif time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.05)
    return _first_failure(processes) if failed is None else failed


def _first_failure(processes: list[subprocess.Popen[bytes]]) -> int | None:
    codes = {rank: process.poll() for rank, process in enumerate(processes)}
    failed = {rank: code for rank, code in codes.items() if code not in (None, 0, INTERRUPTED)}
    return min(failed, key=failed.__getitem__, default=None)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
