"""Starts the ranks of one training that belong on this machine, and stops them together.

A rank ends with its launcher, however that ends. Signals reach the ranks through the launcher alone, as SIGUSR1,
so that a Ctrl-C or a cluster's SIGTERM, which all processes get, does not count twice. Of several nodes each has a
launcher; the ranks of all find out together, at the next step, that one of them was asked to stop.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from entropy_mechanism.stages.peers import Peers, Place, main_address
from entropy_mechanism.stages.stopping import INTERRUPTED, RELAYED, UNFIT, StopRequest

GRACE = 20.0
"""Seconds that the other ranks get once one has ended with an error; they wait for it in vain."""
_LAUNCHER = "ENTROPY_MECHANISM_LAUNCHER"
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


class UnfitError(ChildProcessError):
    """Ranks found that the run does not fit into their GPUs."""


def launch(command: Sequence[str], ranks: int, stop: StopRequest, lock: int, peers: Peers, port: int) -> None:
    """Run `python -m entropy_mechanism` with the arguments `command` once per rank of this node; wait for all.

    `ranks` are those of all nodes. Node 0 also waits for the others to end. The ranks inherit the descriptor
    `lock`, so that a lock on it ends with the last of them; -1 where there is none. They meet at node 0's `port`.
    Raises SystemExit with 75 when the ranks stopped in time, and ChildProcessError when one of them failed:
    UnfitError when its GPU is too small.
    """
    here = ranks // peers.place.count
    first = peers.place.rank * here
    shared = {
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(here),
        "MASTER_ADDR": main_address(peers),
        "MASTER_PORT": str(port),
        _LAUNCHER: str(os.getpid()),
    }
    usual = {"OMP_NUM_THREADS": "1"}
    if interface := peers.interface:  # gloo would take what the host's own name resolves to: on Debian 127.0.1.1
        usual["GLOO_SOCKET_IFNAME"] = interface
    # A rank inherits the block and lifts it once it listens; until then a signal would end it.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)
    processes = {
        first + index: subprocess.Popen(
            [sys.executable, "-m", "entropy_mechanism", *command],
            env=usual | os.environ | shared | {"RANK": str(first + index), "LOCAL_RANK": str(index)},
            start_new_session=True,
            pass_fds=(lock,) if lock >= 0 else (),
        )
        for index in range(here)
    }
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    try:
        _wait(processes, ranks, stop, peers)
    finally:
        for process in processes.values():
            process.kill()
    if peers.failures:
        status, text = min(peers.failures)
        raise (UnfitError if status == UNFIT else ChildProcessError)(text)
    if any(process.returncode == INTERRUPTED for process in processes.values()):
        raise SystemExit(INTERRUPTED)


def follow_launcher() -> None:
    """In a rank: end when the launcher ends."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != int(os.environ[_LAUNCHER]):  # it ended before the line above took effect
        os._exit(1)


def meeting_port(place: Place) -> int:
    """A free port of node 0 for ranks to meet at: next to the launchers', which a firewall may let through."""
    if place.count > 1:
        with contextlib.suppress(OSError), socket.create_server(("", place.port + 1)):
            return place.port + 1
    return free_port()


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]


def _wait(processes: dict[int, subprocess.Popen[bytes]], ranks: int, stop: StopRequest, peers: Peers) -> None:
    """Wait until all ranks have ended, here and on the nodes that this one waits for.

    What failed is in `peers.failures`: of each node the rank that failed first, one that was killed before one
    that noticed; a node that is gone before both.
    """
    told, own, deadline = False, None, float("inf")
    while True:
        alive = any(process.poll() is None for process in processes.values())
        late = time.monotonic() > deadline
        if own is None and not late and (own := _first_failure(processes, ranks, peers)):
            peers.failures.append(own)
            peers.say("failed", status=own[0], text=own[1])
        peers.poll()
        if peers.failures and deadline == float("inf"):
            deadline = time.monotonic() + GRACE
            if own is None and peers.place.rank == 0:  # another node's; the rest have to know
                status, text = min(peers.failures)
                peers.say("failed", status=status, text=text)
        if not alive and (not peers.busy or time.monotonic() > deadline + GRACE):
            break
        if late or peers.verdict:  # node 0 waits for no rank of this node any more
            for process in processes.values():
                process.kill()
        if stop.reason and not told:
            told = True
            for process in processes.values():
                process.send_signal(signal.SIGUSR1)
        time.sleep(0.05)
    peers.say("ended")


def _first_failure(
    processes: dict[int, subprocess.Popen[bytes]], ranks: int, peers: Peers
) -> tuple[int, str] | None:
    codes = {rank: process.poll() for rank, process in processes.items()}
    failed = {rank: code for rank, code in codes.items() if code not in (None, 0, INTERRUPTED)}
    if not failed:
        return None
    rank = min(failed, key=failed.__getitem__)
    where = f" ({peers.name(peers.place.rank)})" if peers.place.count > 1 else ""
    status = failed[rank]
    return status, f"rank {rank} of {ranks}{where} ended with status {status}; see its message above, if any"
