"""The processes that compare answers: hostile answers, deaths, deadlines, and nothing left behind."""

import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from entropy_mechanism.rewards import workers
from entropy_mechanism.rewards.math import Grader
from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rewards.workers import MEGABYTES, Workers

REPOSITORY = Path(__file__).parents[2]
ENDLESS = r"9^{9^{9^9}}+x"
RIGHT, WRONG = (r"1+\sqrt{2}", r"\sqrt{2}+1", "strict"), (r"2+\sqrt{2}", r"\sqrt{2}+1", "strict")
START = 30.0
"""Seconds that starting a worker may take on a busy machine."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def pool():
    pool = Workers(1, deadline=60)
    yield pool
    pool.close()


def endless(n=0):
    return f"{ENDLESS}-{n}", r"\sqrt{x}", "strict"


def wait_until(condition, seconds=START):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def in_background(pool, requests):
    """Compare in a thread; the outcomes come with `join`."""
    found = []
    thread = threading.Thread(target=lambda: found.extend(pool.compare(requests)))
    thread.start()
    return thread, found


def busy(pool):
    return [process for process in pool.processes if process.item is not None]


# --- hostile answers ------------------------------------------------------------------------------------------

HOSTILE = {
    "power tower": "9^{9^{9^9}}",
    "power tower in a formula": ENDLESS,
    "factorial": "10000000!",
    "quotient of factorials": r"\frac{10000000!}{9999999!}",
    "300 brackets": "(" * 300 + "7" + ")" * 300,
    "20 brackets": "(" * 20 + "7" + ")" * 20,
    "nested braces": r"\frac{1}{" * 60 + "7" + "}" * 60,
    "fewer nested braces": r"\frac{1}{" * 18 + "7" + "}" * 18,
    "nested subscripts": "x_{" * 19 + "7" + "}" * 19,
    "5,000 letters": "x" * 5000,
    "450 letters": "x" * 450,
    "20,000 numbers": "1 " * 20_000,
    "240 numbers": "1 " * 240,
    "large power": "2^{100000000}",
    "large power in a formula": "2^{100000000}-1",
    "long sum": r"\sum_{k=1}^{100000000} \frac{1}{k^2}",
    "large binomial": r"\binom{10000000}{5000000}",
    "power of a sum": "(a+b+c+d+e)^{200}",
    "no text at all": "\x00\ud7ff\ud800",
    "broken commands": r"\frac" * 90,
    "brackets that never close": "{" * 6 + "}" * 6,
}


@pytest.mark.parametrize("gold", ["8", r"\frac{\sqrt{x}}{3}"])
def test_hostile_answers_cost_their_deadline_at_most_and_never_their_neighbours(gold):
    deadline = 0.5
    with Grader(workers=1, deadline=deadline) as grader:
        grader.compare([RIGHT[:2]])
        for n, (name, answer) in enumerate(HOSTILE.items()):
            before = len(grader.workers.processes)
            start = time.monotonic()
            (outcome,) = grader.compare([(answer, gold)])
            assert time.monotonic() - start < deadline + 2 + START * (before == 0), name
            assert outcome in (Outcome.WRONG, Outcome.TIMEOUT, Outcome.ERROR), name
            following = grader.grade([(rf"\boxed{{{n}+\sqrt{{5}}}}", rf"\sqrt{{5}}+{n}"), (r"\boxed{8}", "8")])
            assert following == [Outcome.CORRECT] * 2, name


def test_a_batch_with_hostile_answers_is_graded_to_its_end(pool):
    pool.seconds = 1.0
    requests = [RIGHT, endless(1), WRONG, endless(2), RIGHT]
    correct, wrong, timeout = Outcome.CORRECT, Outcome.WRONG, Outcome.TIMEOUT
    assert pool.compare(requests) == [correct, timeout, wrong, timeout, correct]


def test_an_answer_that_came_in_time_counts_however_late_it_is_read(pool, monkeypatch):
    pool.compare([RIGHT])
    pool.seconds = 0.5
    readable = pool._readable
    monkeypatch.setattr(pool, "_readable", lambda: time.sleep(1) or readable())
    assert pool.compare([RIGHT, WRONG]) == [Outcome.CORRECT, Outcome.WRONG]


def test_an_error_inside_a_comparison_is_an_outcome_of_its_own(pool):
    assert pool.compare([(r"\sqrt{2}", "7", "no such grader", "one too many"), RIGHT]) == [
        Outcome.ERROR,
        Outcome.CORRECT,
    ]


@linux
def test_a_worker_has_little_memory(pool):
    pool.compare([RIGHT])
    limits = Path(f"/proc/{pool.processes[0].popen.pid}/limits").read_text().splitlines()
    (line,) = [line for line in limits if line.startswith("Max address space")]
    assert line.split()[3] == str(MEGABYTES * 2**20)


def test_running_out_of_memory_costs_one_answer(pool, monkeypatch):
    monkeypatch.setattr(workers, "MEGABYTES", 100)  # of which a worker needs 70 to start, and this answer 130 more
    hungry = (r"2^{100000000}-1", "x^2", "strict")
    outcomes = pool.compare([hungry, RIGHT])
    assert outcomes[0] in (Outcome.ERROR, Outcome.WRONG)
    assert outcomes[1] is Outcome.CORRECT


# --- deaths, signals, ends ------------------------------------------------------------------------------------


def test_a_worker_killed_while_idle_is_replaced_unnoticed(pool):
    pool.compare([RIGHT])
    pool.processes[0].popen.kill()
    pool.processes[0].popen.wait()
    assert pool.compare([RIGHT, WRONG]) == [Outcome.CORRECT, Outcome.WRONG]


def test_an_answer_whose_worker_is_killed_twice_is_an_error_and_the_rest_is_graded(pool):
    thread, found = in_background(pool, [endless(), RIGHT])
    killed = []
    for _ in range(2):
        wait_until(lambda: any(p.item == 0 and p.popen.pid not in killed for p in busy(pool)))
        killed.append(busy(pool)[0].popen.pid)
        os.kill(killed[-1], signal.SIGKILL)
    thread.join(START)
    assert found == [Outcome.ERROR, Outcome.CORRECT]


def test_a_worker_heeds_neither_ctrl_c_nor_sigterm_and_is_not_of_our_process_group(pool):
    pool.compare([RIGHT])
    (process,) = pool.processes
    assert os.getpgid(process.popen.pid) != os.getpgid(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process.popen.pid, number)
    assert pool.compare([WRONG]) == [Outcome.WRONG]
    assert pool.processes == [process]


def test_an_exception_while_waiting_ends_the_busy_workers(pool, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    pool.compare([RIGHT])
    pid = pool.processes[0].popen.pid
    monkeypatch.setattr(pool, "_readable", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.compare([endless()])
    assert pool.processes == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_grader_leaves_no_process_behind():
    with Grader() as grader:
        grader.compare([RIGHT[:2]])
        pids = [process.popen.pid for process in grader.workers.processes]
    assert len(pids) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


PARENT = r"""
import fcntl, os, sys, threading, time
from entropy_mechanism.rewards.workers import Workers
lock = open(sys.argv[1], "a+")
fcntl.flock(lock, fcntl.LOCK_EX)
pool = Workers(2, deadline=600)
pool.compare([("1+x", "x+1", "strict")])
threading.Thread(target=pool.compare, args=([(r"9^{9^{9^9}}+x", "y", "strict")],), daemon=True).start()
while not any(process.item is not None for process in pool.processes):
    time.sleep(0.01)
time.sleep(0.5)
print(*[process.popen.pid for process in pool.processes], flush=True)
time.sleep(600)
"""


@linux
def test_workers_hold_no_lock_and_die_with_a_parent_that_is_killed(tmp_path):
    path = tmp_path / "lock"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, path], stdout=subprocess.PIPE, text=True)
    try:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert pids
        for pid in pids:
            assert is_alive(pid)
            opened = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
            assert str(path) not in opened
        with path.open() as handle, pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    with path.open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    wait_until(lambda: not any(is_alive(pid) for pid in pids), seconds=5)


def test_a_worker_that_cannot_start_says_so(pool, monkeypatch):
    monkeypatch.setattr(workers.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"ended with status 1 before it was ready.*rewards\.worker"):
        pool.compare([RIGHT])


def test_few_answers_start_few_workers():
    pool = Workers(3, deadline=60)
    try:
        pool.compare([RIGHT] * 3)
        assert len(pool.processes) == 1
        assert pool.compare([RIGHT, WRONG] * 30) == [Outcome.CORRECT, Outcome.WRONG] * 30
        assert len(pool.processes) == 3
    finally:
        pool.close()


@pytest.mark.parametrize(("count", "deadline"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_impossible_pools_are_refused(count, deadline):
    with pytest.raises(ValueError, match="allowed: "):
        Workers(count, deadline)


# --- throughput -----------------------------------------------------------------------------------------------


def test_a_thousand_short_answers_and_a_hostile_one_are_graded_quickly():
    spec = importlib.util.spec_from_file_location("throughput", REPOSITORY / "benchmarks/grading_throughput.py")
    throughput = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(throughput)
    short = throughput.pairs(1000)
    start = time.monotonic()
    with Grader(workers=2, deadline=2.0) as grader:
        outcomes = grader.grade(short[:500] + throughput.hostile(1) + short[500:])
    assert time.monotonic() - start < 120  # about 5 on two free cores
    assert outcomes.pop(500) is Outcome.TIMEOUT
    assert {*outcomes} == {Outcome.CORRECT, Outcome.WRONG}
    assert 400 < outcomes.count(Outcome.CORRECT) < 600
