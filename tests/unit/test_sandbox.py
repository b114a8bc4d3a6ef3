"""Programs that attack: each is stopped and graded with its reason, and the next one is graded as ever."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from entropy_mechanism.rewards import sandbox as sandbox_module
from entropy_mechanism.rewards.code import Verdict, grade_program, read_tests
from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rewards.sandbox import UNSANDBOXED_VARIABLE, Job, Limits, Sandbox, SandboxError

LIMITS = Limits(cpu=2, wall=30, memory=256 << 20, disk=8 << 20, output=1 << 20)


ECHO = read_tests('{"kind": "stdio", "inputs": ["3 4"], "outputs": ["7"]}')
RIGHT = "a, b = map(int, input().split())\nprint(a + b)\n"


@pytest.fixture(scope="module")
def sandbox():
    try:
        box = Sandbox(LIMITS)
    except SandboxError as error:
        pytest.skip(str(error))
    yield box
    box.close()


@pytest.fixture
def grade(sandbox):
    """Grades a program, then makes sure that the next one is graded normally."""

    def run(program, tests=ECHO):
        verdict = grade_program(sandbox, program, tests)
        assert grade_program(sandbox, RIGHT, ECHO).outcome is Outcome.CORRECT
        return verdict

    return run


def output(sandbox, program):
    (ended,) = sandbox.run(Job("program", {"code": program}))
    return ended.stdout.decode(), ended.report.get("error", "")


# --- what a program can reach -------------------------------------------------------------------------------


def test_the_home_folder_and_this_checkout_cannot_be_read(sandbox, tmp_path):
    secret = Path.home() / f".sandbox-test-{os.getpid()}"
    secret.write_text("secret")
    try:
        for path in (secret, Path(__file__), tmp_path, "/etc/passwd", "/proc/self/environ", "/proc/1/cmdline"):
            printed, error = output(sandbox, f"import os\nprint(os.stat({str(path)!r}))")
            assert (printed, error[:15] in ("FileNotFoundErr", "PermissionError")) == ("", True), path
        printed, error = output(sandbox, f"import os\nprint(os.listdir({str(Path.home())!r}))")
        assert (printed, error[:15] in ("FileNotFoundErr", "PermissionError")) == ("", True)
    finally:
        secret.unlink()


def test_nothing_outside_its_folder_can_be_written(sandbox, tmp_path):
    for folder in ("/", "/usr", "/dev", "/etc", "/project", "/libraries", "/var/tmp", "/dev/shm", str(tmp_path)):
        printed, error = output(sandbox, f"open({folder!r} + '/x', 'w').write('x')\nprint('written')")
        assert (printed, "Error" in error) == ("", True), folder
    assert output(sandbox, "open('x', 'w').write('7')\nprint(open('/tmp/x').read())") == ("7\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_belongs_to_one_program(sandbox):
    assert output(sandbox, "open('/tmp/note', 'w').write('7')")[1] == ""
    assert output(sandbox, "import os\nprint(os.listdir('/tmp'), os.getcwd())") == ("[] /tmp\n", "")


def test_there_are_no_sockets_and_no_network(grade, sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"import socket\nprint(socket.create_connection(('127.0.0.1', {port})))"
        verdict = grade(program)
        assert verdict == Verdict(Outcome.ERROR, "PermissionError: [Errno 1] Operation not permitted in test 1")
        assert output(sandbox, "import socket\nsocket.socket(socket.AF_UNIX)")[1].startswith("PermissionError")


def test_programs_get_the_libraries_of_an_environment_that_has_them_from_another(sandbox, tmp_path):
    """As .venv-slurm has those of .venv: its own folder of packages is nearly empty."""
    folder = tmp_path / "beside"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    base = str(Path(pytest.__file__).parents[1])
    (packages / "base.pth").write_text(f"import site; site.addsitedir({base!r})\n")
    program = (
        "from entropy_mechanism.rewards.sandbox import Job, Limits, Sandbox\n"
        "sandbox = Sandbox(Limits())\n"
        "(ended,) = sandbox.run(Job('program', {'code': 'import pytest, numpy'}))\n"
        "sandbox.close()\n"
        "print(ended.report)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(sandbox_module.__file__).parents[2])}
    command = [folder / "bin/python", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stdout


def test_the_environment_holds_nothing_of_the_grader(sandbox, monkeypatch):
    monkeypatch.setenv("SANDBOX_SECRET", "secret")
    assert "secret" not in output(sandbox, "import os\nprint(dict(os.environ))")[0].lower()


def test_the_server_never_holds_what_a_program_gets(sandbox):
    """The forked process inherits the server's memory, so a search of it finds only what came to the process."""
    search = (
        "import gc\nprint([o for o in gc.get_objects() if type(o) is dict and 'earlier-' + 'item' in o.values()])"
    )
    sandbox.run(Job("program", {"code": "x = 'earlier-item'"}, "earlier-item"))
    assert output(sandbox, search) == ("[]\n", "")


# --- limits -------------------------------------------------------------------------------------------------


HOSTILE = {
    "runs forever": ("while True: pass", "timeout", "killed: processor time of 2 s in test 1"),
    "ignores signals": (
        """
import signal
for n in range(1, 65):
    try: signal.signal(n, signal.SIG_IGN)
    except Exception: pass
while True: pass""",
        "timeout",
        "killed: processor time of 2 s in test 1",
    ),
    "allocates 50 GB": ("x = bytearray(50 << 30)", "error", "memory in test 1"),
    "fills the memory": ("x = []\nwhile True: x.append(bytearray(1 << 20))", "error", "memory in test 1"),
    "forks": ("import os\nfor _ in range(10000): os.fork()", "error", "PermissionError: [Errno 1]"),
    "starts programs": (
        "import subprocess\nsubprocess.run(['/usr/bin/id'])",
        "error",
        "PermissionError: [Errno 1]",
    ),
    "starts processes": (
        "import multiprocessing\nmultiprocessing.Process(target=print).start()",
        "error",
        "PermissionError: [Errno 1]",
    ),
    "leaves a daemon": (
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(60)\nprint(7)",
        "error",
        "PermissionError: [Errno 1]",
    ),
    "prints forever": (
        "while True: print('x' * 10000)",
        "error",
        "killed: output of more than 1048576 bytes in test 1",
    ),
    "reports forever": (
        "import os\nwhile True: os.write(4, b'x' * 10000)",
        "error",
        "killed: output of more than",
    ),
    "writes 10 GB": (
        "f = open('big', 'wb')\nfor _ in range(10 << 10): f.write(bytes(1 << 20))",
        "error",
        "OSError: [Errno ",
    ),
    "writes many files": (
        "for n in range(100):\n  with open(str(n), 'wb') as f: f.write(bytes(1 << 20))",
        "error",
        "OSError: [Errno 28]",
    ),
    "makes many files": ("for n in range(10000): open(str(n), 'w').close()", "error", "OSError: [Errno 28]"),
    "recurses": ("def f(): f()\nf()", "error", "RecursionError: maximum recursion depth"),
    "crashes": ("import ctypes\nctypes.string_at(0)", "error", "killed: SIGSEGV in test 1"),
    "kills its parent": ("import os\nos.kill(os.getppid(), 9)", "wrong", "wrong output in test 1"),
    "kills all it can": ("import os\nos.kill(-1, 9)", "error", "ProcessLookupError"),
    "kills its neighbours": (
        """
import os
for n in range(2, 300):
    try: os.kill(n, 9)
    except ProcessLookupError: pass""",
        "wrong",
        "wrong output in test 1",
    ),
    "exits": ("import sys\nsys.exit(0)", "wrong", "wrong output in test 1"),
    "exits at once": ("import os\nos._exit(0)", "wrong", "wrong output in test 1"),
    "is no Python": ("print(7", "error", "SyntaxError: "),
    "closes everything": ("import os\nos.closerange(0, 100)\nprint(7)", "wrong", "wrong output in test 1"),
    "reports nonsense": (
        r"""import os; os.write(4, b'{"value": 7}\n[]\n\xff\n' + b'[' * 100000 + b'\n')""",
        "wrong",
        "wrong output in test 1",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_is_stopped_with_its_reason(grade, name):
    program, outcome, reason = HOSTILE[name]
    verdict = grade(program)
    assert (verdict.outcome, verdict.reason[: len(reason)]) == (outcome, reason)


def test_a_program_that_waits_is_killed_after_its_time():
    box = Sandbox(Limits(wall=0.5), unsandboxed=True)
    start = time.monotonic()
    verdict = grade_program(box, "import time\ntime.sleep(100)", ECHO)
    assert verdict == Verdict(Outcome.TIMEOUT, "killed: wall time of 0.5 s in test 1")
    assert time.monotonic() - start < 10
    assert grade_program(box, RIGHT, ECHO).outcome is Outcome.CORRECT
    box.close()


def test_many_threads_end_with_their_program(grade, sandbox):
    program = (
        "import threading, time\nthreading.stack_size(32768)\n"
        "for _ in range(10000): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    assert grade(program).outcome in (Outcome.ERROR, Outcome.TIMEOUT)
    assert output(sandbox, "import threading\nt = threading.Thread(target=print, args=(7,))\nt.start()") == (
        "7\n",
        "",
    )


def test_no_process_is_left_behind(sandbox):
    def processes():
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        return listed.count("entropy_mechanism.rewards.inside.server")

    before = processes()
    grade_program(sandbox, "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(60)\nprint(7)", ECHO)
    assert processes() == before


@pytest.mark.parametrize(
    "call",
    [
        "libc.syscall({clone}, 17 | 0x10000000, 0, 0, 0, 0)",  # a user namespace of its own
        "libc.unshare(0x10000000)",
        "libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None)",
        "libc.ptrace(0, 0, 0, 0)",
        "libc.setns(3, 0)",
        "libc.syscall({keyctl}, 0, -3, 0)",
    ],
)
def test_calls_that_lead_out_are_refused(sandbox, call):
    from entropy_mechanism.rewards.inside.syscalls import ARCHITECTURES, CALLS

    column = list(ARCHITECTURES).index(os.uname().machine)
    call = call.format(**{name: numbers[column] for name, numbers in CALLS.items()})
    program = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint({call}, ctypes.get_errno())"
    assert output(sandbox, program) == ("-1 1\n", "")


def test_a_program_has_no_capability_even_after_running_another(sandbox):
    look = "import ctypes; h = (ctypes.c_uint32 * 2)(0x20080522, 0); d = (ctypes.c_uint32 * 6)(); "
    look += "ctypes.CDLL(None).capget(h, d); print(list(d))"
    assert output(sandbox, look)[0] == "[0, 0, 0, 0, 0, 0]\n"
    again = f"import os, sys\nos.execv(sys.executable, [sys.executable, '-I', '-S', '-c', {look!r}])"
    assert output(sandbox, again)[0] == "[0, 0, 0, 0, 0, 0]\n"


# --- verdicts do not depend on chance -------------------------------------------------------------------------


def test_chance_and_the_order_of_sets_are_the_same_in_every_run(sandbox):
    program = "import random\nprint(random.random(), {'a', 'b', 'c', 'd'}, hash('x'))"
    assert output(sandbox, program) == output(sandbox, program)


# --- the sandbox itself ----------------------------------------------------------------------------------------


def test_without_bubblewrap_programs_are_refused_unless_allowed(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        SandboxError, match=rf"bwrap is not on the PATH.*apt-get install bubblewrap.*{UNSANDBOXED_VARIABLE}=1"
    ):
        Sandbox()
    monkeypatch.setenv(UNSANDBOXED_VARIABLE, "0")
    with pytest.raises(SandboxError):
        Sandbox()
    monkeypatch.setenv(UNSANDBOXED_VARIABLE, "1")
    Sandbox().close()


def test_a_bubblewrap_that_does_not_work_is_named_with_what_it_said(monkeypatch, tmp_path):
    false = tmp_path / "bwrap"
    false.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    false.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SandboxError, match=r"No permissions to create new namespace.*user namespaces"):
        Sandbox()


def test_limits_and_system_call_filter_hold_without_bubblewrap(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    box = Sandbox(LIMITS, unsandboxed=True)
    try:
        assert grade_program(box, RIGHT, ECHO).outcome is Outcome.CORRECT
        for program, reason in (
            ("x = bytearray(50 << 30)", "memory"),
            ("while True: pass", "killed: processor time"),
            ("import os\nwhile True: os.fork()", "PermissionError"),
            ("open('x', 'wb').write(bytes(20 << 20))", "OSError"),
        ):
            assert grade_program(box, program, ECHO).reason.startswith(reason)
        assert "program-" in output(box, "import os\nopen('left', 'w')\nprint(os.getcwd())")[0]
        assert list(tmp_path.iterdir()) == []
    finally:
        box.close()


def test_a_sandbox_that_has_ended_says_so():
    box = Sandbox(LIMITS, unsandboxed=True)
    box._server.kill()
    box._server.wait()
    with pytest.raises(SandboxError, match="the sandbox has ended"):
        box.run(Job("program", {"code": ""}))
    box.close()


def test_no_descriptor_is_left_open(sandbox):
    count = lambda: len(os.listdir("/proc/self/fd"))  # noqa: E731
    before = count()
    for _ in range(5):
        sandbox.run(Job("program", {"code": "print(1)"}))
        sandbox.run(Job("solution", {"code": ""}), Job("tests", {"code": "def test_a(): pass"}))
    assert count() == before


def test_an_unknown_machine_is_refused():
    from entropy_mechanism.rewards.inside.syscalls import filter_program

    with pytest.raises(OSError, match="'riscv64'; there is one for x86_64, aarch64"):
        filter_program("riscv64")
