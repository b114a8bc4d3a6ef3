"""The server inside the sandbox: forks one limited process for each program.

It is started once, since starting Python for each program would cost a hundred milliseconds. It never sees what it
runs: programs, tests and inputs reach the forked process through file descriptors that are only passed on. So a
program finds nothing of another one in the memory it inherits.

A program's process has its own process and IPC namespace, its own file system for `/tmp`, no capability, no
network, no right to create processes, and limits. Nothing else can be written, and there is no `/proc`.
"""

import builtins
import gc
import json
import os
import random
import resource
import select
import signal
import socket
import sys

from entropy_mechanism.rewards.inside import roles, syscalls

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID = 0x00020000, 0x08000000, 0x20000000
MS_NOSUID, MS_NODEV = 2, 4
MESSAGE = 65536
"""Bytes of a message at most."""


def serve(control: socket.socket, isolated: bool) -> None:
    """Answer requests until the other side closes the connection.

    `{"start": id, "role": …, "limits": {…}, "folder": …}` comes with the descriptors of the new process: standard
    input, standard output, payload, result and, for some roles, a link. `{"kill": id}` ends one. Every process
    that ended is reported as `{"ended": id, "status": …, "cpu": seconds}`.
    """
    gc.freeze()
    own_processes = os.pidfd_open(os.getpid())
    running: dict[int, tuple[int, int]] = {}  # id -> process, its descriptor
    control.send(b'{"ready": true}')
    while True:
        waiting = select.poll()
        waiting.register(control, select.POLLIN)
        for _, descriptor in running.values():
            waiting.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in waiting.poll()}
        for name, (pid, descriptor) in list(running.items()):
            if descriptor in ready:
                if not isolated:
                    _kill_group(pid)  # what it may have left behind
                _, status, usage = os.wait4(pid, 0)
                os.close(descriptor)
                del running[name]
                ended = {"ended": name, "status": status, "cpu": usage.ru_utime + usage.ru_stime}
                control.send(json.dumps(ended).encode())
        if control.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(control, MESSAGE, 8)
            if not message:
                break
            request = json.loads(message)
            if "kill" in request:
                if request["kill"] in running:
                    _kill(running[request["kill"]][0], isolated)
                continue
            if request["role"] == "tests":
                roles.prepare_tests()
            pid = _fork(request, descriptors, isolated, own_processes)
            running[request["start"]] = pid, os.pidfd_open(pid)
            for descriptor in descriptors:
                os.close(descriptor)
    for pid, _ in running.values():
        _kill(pid, isolated)


def _fork(request: dict, descriptors: list[int], isolated: bool, own_processes: int) -> int:
    """Start a process; in a new process namespace where its end is the end of all that it started."""
    if isolated:
        syscalls.call("unshare", CLONE_NEWPID)
    pid = os.fork()
    if pid:
        if isolated:
            syscalls.call("setns", own_processes, CLONE_NEWPID)
        return pid
    try:
        _enter(request, descriptors, isolated)
        roles.run(request["role"])
    except BaseException as error:
        roles.report(setup=f"{type(error).__name__}: {error}")
    finally:
        os._exit(1)


def _enter(request: dict, descriptors: list[int], isolated: bool) -> None:
    """In the new process: confine it. What is forbidden here cannot be allowed again."""
    limits = request["limits"]
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGPIPE else signal.SIG_IGN)
    stdin, stdout, payload, result, *link = descriptors
    # Copies above all that are in use first, so that none is overwritten before its turn.
    chosen = [stdin, stdout, os.open(os.devnull, os.O_WRONLY), payload, result, *link]
    high = [os.dup2(descriptor, 100 + n) for n, descriptor in enumerate(chosen)]
    for n, descriptor in enumerate(high):
        os.dup2(descriptor, n)
    os.closerange(len(high), 4096)
    if isolated:
        syscalls.call("unshare", CLONE_NEWNS | CLONE_NEWIPC)
        options = f"size={limits['disk']},nr_inodes=4096,mode=700".encode()
        syscalls.call("mount", b"tmpfs", b"/tmp", b"tmpfs", MS_NOSUID | MS_NODEV, options)
    os.chdir(request["folder"])
    os.environ.update(HOME=request["folder"], TMPDIR=request["folder"])
    for kind, value in (
        (resource.RLIMIT_CPU, limits["cpu"]),
        (resource.RLIMIT_FSIZE, limits["disk"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(kind, (value, value))
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory"], limits["memory"] + roles.RESERVE))
    syscalls.drop_capabilities()
    syscalls.forbid()
    random.seed(0)


def _kill(pid: int, isolated: bool) -> None:
    """End a process and all it started; the end of the first of a namespace is the end of all."""
    if isolated:
        os.kill(pid, signal.SIGKILL)
    else:
        _kill_group(pid)


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    for _name in ("exit", "quit"):  # Python gives them to scripts, but not when started as here
        setattr(builtins, _name, sys.exit)
    serve(socket.socket(fileno=int(sys.argv[1])), isolated=sys.argv[2] == "isolated")
