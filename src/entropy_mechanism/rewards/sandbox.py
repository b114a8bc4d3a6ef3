"""A sandbox for programs that a policy wrote: bubblewrap around a server that forks one process for each program.

`docs/grading-code.md` says what is isolated by what. The server and what its processes do is in `rewards/inside`.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from entropy_mechanism.paths import UNSANDBOXED_VARIABLE

_PACKAGE = Path(__file__).parents[1]
_START_SECONDS = 60.0
_ADVICE = (
    f"; or, only where every program can be trusted, set {UNSANDBOXED_VARIABLE}=1 to run them with limits alone "
    "(docs/grading-code.md)"
)


class SandboxError(OSError):
    """There is no working sandbox on this machine, or it broke; programs were not to blame."""


@dataclass(frozen=True)
class Limits:
    """What one process in the sandbox may use."""

    cpu: int = 5
    """Seconds of processor time."""
    wall: float = 20.0
    """Seconds until it is killed, which only a program that waits reaches, or a machine that is too busy."""
    memory: int = 1 << 30
    """Bytes of address space."""
    disk: int = 64 << 20
    """Bytes in its folder, and in any one file."""
    output: int = 8 << 20
    """Bytes printed and reported together."""


@dataclass(frozen=True)
class Job:
    """One process to run."""

    role: str
    """A name of `rewards.inside.roles.ROLES`."""
    payload: dict[str, Any]
    """The arguments of that role, as JSON values."""
    stdin: str = ""


@dataclass
class Ended:
    """What a process left behind."""

    status: int = 0
    """Wait status, as `os.waitpid` gives it."""
    cpu: float = 0.0
    """Seconds of processor time used."""
    killed: str | None = None
    """Why it was killed: for `wall time` or `output`, or since its `leader` had ended; None when it was not."""
    stdout: bytearray = field(default_factory=bytearray)
    raw_report: bytearray = field(default_factory=bytearray)

    @property
    def reports(self) -> list[dict[str, Any]]:
        """What the process reported; it may have written anything, so nothing in it is to be trusted."""
        found = []
        for line in bytes(self.raw_report).splitlines():
            try:
                facts = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(facts, dict):
                found.append(facts)
        return found

    @property
    def report(self) -> dict[str, Any]:
        """All reports in one, of equal keys the last."""
        return {name: value for facts in self.reports for name, value in facts.items()}


class Sandbox:
    """One server and the processes it forks; one job, or two that are linked, at a time, from one thread."""

    def __init__(self, limits: Limits | None = None, unsandboxed: bool | None = None) -> None:
        """Start the server. Raises `SandboxError` saying what is missing when there can be no sandbox.

        `unsandboxed` is by default whether the environment variable `ENTROPY_MECHANISM_UNSANDBOXED` allows it.
        """
        self.limits = limits or Limits()
        if unsandboxed is None:
            unsandboxed = os.environ.get(UNSANDBOXED_VARIABLE, "") == "1"
        self.isolated = not unsandboxed
        self._next = 0
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            number = theirs.fileno()
            command = _bubblewrap(number) if self.isolated else _server(number, isolated=False)
            self._server = subprocess.Popen(
                command,
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=_environment(self.isolated),
                start_new_session=True,
            )
        self._finalizer = weakref.finalize(self, _end, self._control, self._server, self._errors)
        try:
            self._receive(_START_SECONDS)  # the server is ready
            (probe,) = self.run(Job("program", {"code": "print(6 * 7)"}))
            if bytes(probe.stdout) != b"42\n":
                raise SandboxError(f"a first program failed: {probe.report.get('setup') or probe}")
        except SandboxError as error:
            self.close()
            if not self.isolated:
                raise
            raise SandboxError(
                f"code grading needs bubblewrap, which does not work here: {error}. It needs user namespaces, "
                f"which a container or a system setting may forbid: allow them{_ADVICE}"
            ) from None

    def run(self, *jobs: Job) -> list[Ended]:
        """Run a job, or two that are linked: then the second is the leader, and with its end the first is killed.

        Returns what each left. Raises `SandboxError` when the server is gone.
        """
        ended = {self._next + n: Ended() for n in range(len(jobs))}
        self._next += len(jobs)
        outputs: dict[int, tuple[int, bytearray]] = {}  # descriptor -> process, what was read
        try:
            with _folders(len(jobs), self.isolated) as folders:
                with _links(len(jobs)) as links:
                    for (name, result), job, folder, link in zip(ended.items(), jobs, folders, links, strict=True):
                        stdout, report = self._start(name, job, folder, link)
                        outputs[stdout], outputs[report] = (name, result.stdout), (name, result.raw_report)
                self._watch(ended, outputs)
        finally:
            for descriptor in outputs:
                os.close(descriptor)
        return list(ended.values())

    def close(self) -> None:
        """End the server and everything it runs."""
        self._finalizer()

    def _start(self, name: int, job: Job, folder: str, link: socket.socket | None) -> tuple[int, int]:
        """Ask for one process; the descriptors from which its output and its report are read."""
        stdin = _memory(job.stdin.encode(errors="surrogatepass"))
        payload = _memory(json.dumps(job.payload).encode())
        stdout, stdout_end = os.pipe()
        report, report_end = os.pipe()
        limits = {name: getattr(self.limits, name) for name in ("cpu", "memory", "disk")}
        request = {"start": name, "role": job.role, "limits": limits, "folder": folder}
        descriptors = [stdin, stdout_end, payload, report_end]
        try:
            ends = [*descriptors, link.fileno()] if link is not None else descriptors
            socket.send_fds(self._control, [json.dumps(request).encode()], ends)
        except OSError:
            os.close(stdout)
            os.close(report)
            raise SandboxError(f"the sandbox has ended{self._last_words()}") from None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        for descriptor in (stdout, report):
            os.set_blocking(descriptor, False)
        return stdout, report

    def _watch(self, ended: dict[int, Ended], outputs: dict[int, tuple[int, bytearray]]) -> None:
        """Read until all processes have ended; kill for time and output, and the others after the leader."""
        deadline = time.monotonic() + self.limits.wall
        poll = select.poll()
        for descriptor in (self._control.fileno(), *outputs):
            poll.register(descriptor, select.POLLIN)
        left, leader = set(ended), max(ended)
        while left:
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                if any(ended[name].killed == "wall time" for name in left):
                    raise SandboxError("a process could not be killed")
                for name in left:
                    self._kill(ended, name, "wall time")
                deadline += _START_SECONDS  # for what is killed to end
            for descriptor, _ in ready:
                if descriptor != self._control.fileno():
                    if not self._read(descriptor, outputs, ended):
                        poll.unregister(descriptor)
                    continue
                message = self._receive(_START_SECONDS)
                name = message["ended"]
                if name not in left:
                    continue  # of an earlier call that was interrupted
                ended[name].status, ended[name].cpu = message["status"], message["cpu"]
                left.discard(name)
                for other in left if name == leader else ():
                    self._kill(ended, other, "leader")
        for descriptor in outputs:
            while self._read(descriptor, outputs, ended):
                pass

    def _read(self, descriptor: int, outputs: dict[int, tuple[int, bytearray]], ended: dict[int, Ended]) -> bool:
        """Take what a pipe holds; whether there may be more. Kills who writes too much, and drops the excess."""
        name, kept = outputs[descriptor]
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return False
        result = ended[name]
        room = self.limits.output - len(result.stdout) - len(result.raw_report)
        kept += data[: max(0, room)]
        if len(data) > room:
            self._kill(ended, name, "output")
        return bool(data)

    def _kill(self, ended: dict[int, Ended], name: int, reason: str) -> None:
        """End a process for a reason; the first reason counts. One that has ended already is left alone."""
        if ended[name].killed is None:
            ended[name].killed = reason
            self._control.send(json.dumps({"kill": name}).encode())

    def _receive(self, patience: float) -> dict[str, Any]:
        """The next message of the server."""
        self._control.settimeout(patience)
        try:
            message = self._control.recv(1 << 16)
        except TimeoutError:
            raise SandboxError(f"no answer from the sandbox for {patience:.0f} seconds") from None
        except OSError:
            message = b""
        if not message:
            raise SandboxError(f"the sandbox has ended{self._last_words()}")
        return json.loads(message)

    def _last_words(self) -> str:
        """What the server said last, if it said anything."""
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return f": {said[-1]}" if said else ""


def _end(control: socket.socket, server: subprocess.Popen, errors: IO[bytes]) -> None:
    """The server ends with its connection, and with it all processes of its namespace."""
    control.close()
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    errors.close()


def _memory(data: bytes) -> int:
    """A file in memory, to be read from its beginning."""
    descriptor = os.memfd_create("sandbox")
    with open(descriptor, "wb", closefd=False) as handle:
        handle.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@contextmanager
def _folders(count: int, isolated: bool) -> Iterator[list[str]]:
    """A working folder for each process: `/tmp`, of which each has its own, or without isolation a new one."""
    if isolated:
        yield ["/tmp"] * count
        return
    made = [tempfile.mkdtemp(prefix="program-") for _ in range(count)]
    try:
        yield made
    finally:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _links(count: int) -> Iterator[list[socket.socket | None]]:
    """The two ends of the link between two processes; none for one."""
    if count == 1:
        yield [None]
        return
    pair = socket.socketpair()
    try:
        yield list(pair)
    finally:
        for end in pair:
            end.close()


def _environment(isolated: bool) -> dict[str, str]:
    """Nothing of the caller's environment, and the same hashes of text in every process."""
    common = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return common | ({} if isolated else {"PATH": os.defpath})


def _libraries() -> str:
    """Where the installed packages are: an environment beside another one, as Slurm's, has them in that one."""
    found = find_spec("pytest")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("pytest, with which programs are tested, is not installed")
    return str(Path(found.origin).parents[1])


def _server(control: int, isolated: bool) -> list[str]:
    """The command of the server. It finds the project's package and the environment's libraries by path."""
    paths = ["/project", "/libraries"] if isolated else [str(_PACKAGE.parent), _libraries()]
    start = (
        f"import sys; sys.path += {paths!r}; sys.argv = ['server', '{control}', "
        f"'{'isolated' if isolated else 'limited'}']; "
        "from runpy import run_module; run_module('entropy_mechanism.rewards.inside.server', run_name='__main__')"
    )
    executable = str(Path(sys.executable).resolve())
    return [executable, "-I", "-S", "-c", start]


def _bubblewrap(control: int) -> list[str]:
    """The server in bubblewrap: Python, system libraries, this package and the environment's libraries, read-only.

    Raises `SandboxError` when bubblewrap is not installed.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError(
            "code grading runs programs in bubblewrap, and bwrap is not on the PATH: install it (Debian, Ubuntu: "
            f"apt-get install bubblewrap){_ADVICE}"
        )
    prefix = Path(sys.base_prefix).resolve()
    system = [Path("/usr"), *(Path(name) for name in ("/lib", "/lib64", "/lib32", "/libx32"))]
    command = [program, "--unshare-all", "--die-with-parent", "--new-session", "--uid", "65534", "--gid", "65534"]
    command += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--hostname", "sandbox"]
    for path in system:
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    if not prefix.is_relative_to("/usr"):
        for parent in [*prefix.parents][-2::-1]:
            # To be entered, not to be listed: a home folder shows nothing but the way to Python.
            command += ["--perms", "0111", "--dir", str(parent)]
        command += ["--ro-bind", str(prefix), str(prefix)]
    command += ["--dir", "/project", "--ro-bind", str(_PACKAGE), f"/project/{_PACKAGE.name}"]
    command += ["--ro-bind-try", _libraries(), "/libraries"]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    command += ["--ro-bind-try", "/etc/localtime", "/etc/localtime", "--dir", "/dev", "--dir", "/tmp"]
    for device in ("null", "zero", "urandom", "random"):
        command += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    return [*command, "--remount-ro", "/", "--chdir", "/", *_server(control, isolated=True)]
