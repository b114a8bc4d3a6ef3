"""Stopping in time, and telling an error that would come again from one that may not."""

import os
import signal
import subprocess
import sys

import pytest

from entropy_mechanism.config_errors import ConfigError
from entropy_mechanism.rl.checkpoint import ForeignCheckpoint
from entropy_mechanism.rl.errors import ParityError
from entropy_mechanism.stages.stopping import MARGIN, SIGNALS, StopRequest, process_age
from entropy_mechanism.stages.train import permanent
from entropy_mechanism.stages.training import sound_rows


@pytest.fixture(autouse=True)
def _handlers():
    before = [(number, signal.getsignal(number)) for number in SIGNALS]
    yield
    for number, handler in before:
        signal.signal(number, handler)


def run(program, **options):
    return subprocess.run([sys.executable, "-c", program], text=True, **options)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_to_stop(number):
    stop = StopRequest()
    assert not stop()
    os.kill(os.getpid(), number)
    assert stop()
    assert stop.reason == number.name


@pytest.mark.parametrize("second", SIGNALS)
@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_signal_of_either_kind_ends_the_process_at_once(first, second):
    program = f"""
import os
from entropy_mechanism.stages.stopping import StopRequest
stop = StopRequest()
os.kill(os.getpid(), {int(first)})
print(stop(), flush=True)
os.kill(os.getpid(), {int(second)})
print("still here")
"""
    done = run(program, capture_output=True)
    assert done.stdout == "True\n"
    assert done.returncode == -second


@pytest.mark.parametrize(
    ("age", "steps", "stops"),
    [
        (99.9, [], False),  # nothing is known yet: try
        (100.0, [], True),
        (100 - MARGIN * 12 - 0.1, [(10, 0), (4, 2)], False),  # the slowest step and the slowest checkpoint
        (100 - MARGIN * 12 + 0.1, [(10, 0), (4, 2)], True),
        (100 - MARGIN * 8 - 0.1, [(4, 0)], False),  # no checkpoint yet: as long as a step
        (100 - MARGIN * 8 + 0.1, [(4, 0)], True),
        (100 - MARGIN * 2 - 0.1, [(10, 1), *[(1, 1)] * 100], False),  # slow once, long ago
    ],
)
def test_another_step_has_to_fit_before_the_deadline(age, steps, stops):
    stop = StopRequest(100.0, age=lambda: age)
    for step, checkpoint in steps:
        stop.took(step, checkpoint)
    assert stop() == stops
    assert (stop.reason or "").startswith("deadline" if stops else "")


def test_without_a_deadline_there_is_time_for_ever():
    stop = StopRequest(age=lambda: 1e9)
    stop.took(1e9, 1e9)
    assert not stop()


def test_the_age_of_a_process_counts_from_its_start():
    program = """
import time
time.sleep(0.5)
from entropy_mechanism.stages.stopping import process_age
print(process_age())
"""
    assert 0.5 <= float(run(program, capture_output=True).stdout) < 20
    assert process_age() > 0


def test_stopping_is_known_before_anything_heavy_is_imported():
    program = """
import sys
import entropy_mechanism.stages.train
print(sorted({"torch", "mlflow", "transformers", "pandas", "numpy"} & set(sys.modules)))
"""
    assert run(program, capture_output=True).stdout == "[]\n"


def test_a_reader_that_is_gone_does_not_change_the_exit_status():
    program = """
import os, signal
from entropy_mechanism.stages.stopping import StopRequest
stop = StopRequest()
os.kill(os.getpid(), signal.SIGTERM)
stop.leave_if_asked("run")
"""
    read, write = os.pipe()
    os.close(read)
    try:
        buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
        done = run(program, stdout=write, stderr=subprocess.PIPE, env=buffered)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (75, "")


def caused_by(error, cause):
    try:
        raise error from cause
    except Exception as caught:
        return caught


def during(error, first):
    try:
        try:
            raise first
        except Exception:
            raise error  # noqa: B904
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ParityError("differ"), True),
        (ForeignCheckpoint("of another run"), True),
        (ConfigError("run.yaml: seed"), True),
        (ValueError("a prompt without tokens"), True),
        (during(ValueError("no number"), KeyError("x")), True),
        (OSError(28, "No space left on device"), False),
        (FileNotFoundError("gone"), False),
        (TimeoutError("in use by another trainer"), False),
        (MemoryError(), False),
        (KeyboardInterrupt(), False),
        (SystemExit(75), False),
        (RuntimeError("CUDA out of memory"), False),
        (TypeError("a bug"), False),
        (caused_by(ValueError("not a model"), OSError(5, "Input/output error")), False),
        (during(ParityError("differ"), MemoryError()), False),
    ],
)
def test_errors_of_the_run_are_permanent_and_those_of_the_machine_are_not(error, expected):
    assert permanent(error) == expected


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"", 0),
        (b'{"step": 0}\n{"step": 1}\n', 2),
        (b'{"step": 0}\n{"step": 1}', 1),
        (b'{"step": 0}\n{"st\n{"step": 2}\n', 1),
        (b'{"step": 0}\n{"step": 2}\n', 1),
        (b'{"step": 0}\n{"step": 0}\n', 1),
        (b'{"step": 0}\n\x00\x00\x00\n', 1),
        (b'{"step": 0}\n7\n', 1),
        (b"\xff\n", 0),
    ],
)
def test_a_series_is_sound_up_to_its_first_fault(tmp_path, content, rows):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    assert sound_rows(path) == content.splitlines(keepends=True)[:rows]
    assert sound_rows(tmp_path / "missing") == []
