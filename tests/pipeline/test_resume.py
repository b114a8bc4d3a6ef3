"""Training that is killed, stopped or damaged on its way, and ends as if it had not been."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from trainers import STEPS, AfterRow, AtEvent, Trainers, wait_until_stopped

# In the order of a run's progress: every attempt gets as far as its moment, and the next goes on from there.
MOMENTS = (
    AfterRow(0, 0.02),
    AtEvent("os.rename", r"records/train"),
    AtEvent("open", r"store/\w+/lock"),
    AtEvent("os.rename", r"metrics\.jsonl"),
    AfterRow(1),
    AtEvent("os.mkdir", r"\.writing-"),
    AtEvent("open", r"\.writing-\d+/state\.pt"),
    AtEvent("open", r"\.writing-\d+/\.complete"),
    AtEvent("os.rename", r"complete\.json"),
    AtEvent("os.rename", r"\.writing-\d+ .*/step-"),
    AtEvent("os.rename", r"\.writing-\d+ .*/step-", 2),
    AtEvent("os.rename", r"step-\d+ .*\.removing-"),
    AtEvent("os.rmdir", r"\.removing-"),
    AfterRow(16, 0.01),
    AfterRow(24, 0.03),
    AfterRow(33, 0.02),
    AfterRow(STEPS + 1),
    AtEvent("os.mkdir", r"\.final-"),
    AtEvent("os.rename", r"/final "),
    AtEvent("os.rename", r"done\.json"),
    AtEvent("os.rename", r"metrics\.parquet"),
    AtEvent("os.rename", r"manifest\.json"),
)


@pytest.fixture(scope="module")
def trainers(tmp_path_factory):
    trainers = Trainers(tmp_path_factory.mktemp("resume"))
    trainers.finish(*trainers.command("whole"))
    yield trainers
    trainers.close()


@pytest.fixture
def name(request, trainers):
    """Folder of this test's run; the log is emptied, so that a test reads its own processes alone."""
    trainers.log.write_text("")
    return "run-" + re.sub(r"\W+", "-", request.node.name)


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def begin(trainers, name, at=None, number=signal.SIGKILL):
    """A trainer in a new process, as a person starts it, with a signal at a moment."""
    program = ["-m", "entropy_mechanism"]
    if at:
        lines = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        lines += f"from trainers import AfterRow, signal_at; signal_at({at!r}, {int(number)}); "
        lines += "from entropy_mechanism.cli import main; main()"
        program = ["-c", lines]
    return subprocess.Popen(
        [sys.executable, *program, *trainers.command(name)],
        cwd=trainers.root,
        env=trainers.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def last_record(trainers, name):
    path = max((trainers.root / name / "records/train").glob("[!.]*.json"), key=lambda path: path.name)
    return json.loads(path.read_text())


def listens(pid):
    """Whether the process has a handler of its own for SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def newest(folder):
    return sorted((folder / "checkpoints").glob("step-*"))[-1]


def test_the_run_trains(trainers):
    frame, digests, facts = trainers.result("whole")
    assert list(frame["step"]) == list(range(STEPS + 1))
    assert frame["policy/loss"].notna().sum() > STEPS // 2
    assert facts["gradient_steps"] > STEPS // 2
    base = json.loads((trainers.root / "model/manifest.json").read_text())["digests"]
    assert digests["model.safetensors"] != base["model.safetensors"]


def test_a_run_killed_at_twenty_moments_ends_as_one_that_was_not(trainers, name):
    assert len(MOMENTS) >= 20
    for moment in MOMENTS:
        assert trainers.kill(name, moment) == -signal.SIGKILL, f"{moment} did not come\n{trainers.text()[-2000:]}"
    trainers.finish(*trainers.command(name))
    trainers.assert_alike(name, "whole")


def test_processes_of_their_own_killed_while_importing_and_while_training_end_alike(trainers, name):
    with begin(trainers, name) as process:
        wait_until(lambda: listens(process.pid))
        process.kill()
    assert process.returncode == -signal.SIGKILL
    with begin(trainers, name, AfterRow(10)) as process:
        text = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, text
    trainers.finish(*trainers.command(name))
    assert "going on from step" in trainers.text()
    trainers.assert_alike(name, "whole")


@pytest.mark.parametrize(
    ("rows", "goes_on"),
    [(STEPS, "going on from step"), (17, "going on from step 15"), (4, "training 40 steps")],
)
def test_a_checkpoint_ahead_of_the_series_is_not_used(trainers, name, rows, goes_on):
    trainers.kill(name, AtEvent("open", r"\.writing-000021/state"))
    series = trainers.store(name) / "metrics.jsonl"
    lines = series.read_bytes().splitlines(keepends=True)
    series.write_bytes(b"".join(lines[:rows]) + (lines[0][:100] if rows < STEPS else b""))
    trainers.log.write_text("")
    trainers.finish(*trainers.command(name))
    assert goes_on in trainers.text()
    assert (f"known up to step {rows} only" in trainers.text()) == (rows < STEPS)
    trainers.assert_alike(name, "whole")


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(trainers, name):
    trainers.kill(name, AtEvent("open", r"\.writing-000015/state"))
    damaged = newest(trainers.store(name)) / "state.pt"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    trainers.finish(*trainers.command(name))
    assert "step-000012 is unusable (digest" in trainers.text()
    assert "going on from step 9 of" in trainers.text()
    trainers.assert_alike(name, "whole")


@pytest.mark.parametrize("damaged", ["final/model.safetensors", "metrics.jsonl", "done.json", "final/config.json"])
def test_a_finished_run_that_was_damaged_is_finished_again(trainers, name, damaged):
    shutil.copytree(trainers.root / "whole", trainers.root / name)
    path = trainers.store(name) / damaged
    if damaged == "final/config.json":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    trainers.finish(*trainers.command(name))
    assert "is not as it was left" in trainers.text()
    trainers.assert_alike(name, "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_answered_with_a_checkpoint_after_the_step_and_status_75(trainers, name, number):
    trainers.start(*trainers.command(name), at=AfterRow(4, 0.02), number=number)
    assert trainers.wait() == 75
    rows = trainers.rows(name)
    assert rows < STEPS
    assert newest(trainers.store(name)).name == f"step-{rows:06d}"
    assert f"stopped after step {rows} of {STEPS} ({number.name}); start again to go on" in trainers.text()
    assert last_record(trainers, name)["status"] == "KILLED"
    assert not (trainers.store(name) / "failed.json").exists()
    trainers.finish(*trainers.command(name))
    assert f"going on from step {rows} of" in trainers.text()
    assert last_record(trainers, name)["status"] == "FINISHED"
    trainers.assert_alike(name, "whole")


def test_a_signal_during_the_imports_ends_with_status_75_before_the_first_step(trainers, name):
    with begin(trainers, name) as process:
        wait_until(lambda: listens(process.pid))
        process.terminate()
        text = process.communicate()[0]
    assert process.returncode == 75
    assert "stopped (SIGTERM); start again to go on" in text
    assert trainers.rows(name) == 0


def test_a_signal_after_the_last_step_lets_the_run_finish(trainers, name):
    trainers.start(*trainers.command(name), at=AfterRow(STEPS + 1), number=signal.SIGTERM)
    assert trainers.wait() == 0
    trainers.assert_alike(name, "whole")


def test_a_deadline_is_kept_and_the_run_goes_on_in_the_next_attempt(trainers, name):
    seconds, stopped = 0.5, 0
    while True:
        start, before = time.monotonic(), trainers.rows(name)
        trainers.start(*trainers.command(name, "--deadline-seconds", seconds))
        if (status := trainers.wait()) == 0:
            break
        assert status == 75
        assert time.monotonic() - start < seconds + 0.5
        assert "(deadline: " in trainers.text()
        if trainers.rows(name) > before:
            stopped += 1
            assert newest(trainers.store(name)).name == f"step-{trainers.rows(name):06d}"
        else:
            seconds *= 2  # this machine needs longer to begin
    assert stopped
    trainers.assert_alike(name, "whole")


def test_a_deadline_that_has_passed_stops_before_the_first_step(trainers, name):
    trainers.finish(*trainers.command(name, "--deadline-seconds", 0), status=75)
    assert trainers.rows(name) == 0


def test_a_permanent_error_stops_further_attempts_until_it_is_cleared(trainers, name):
    weights = trainers.root / "model/model.safetensors"
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        trainers.finish(*trainers.command(name), status=1)
    finally:
        weights.write_bytes(content)
    marker = trainers.store(name) / "failed.json"
    failed = json.loads(marker.read_text())
    assert "model.safetensors was changed after it was written" in failed["error"]
    assert failed["host"] == os.uname().nodename
    assert failed["time"]
    trainers.log.write_text("")
    trainers.finish(*trainers.command(name), status=1)
    assert failed["error"] in " ".join(trainers.text().split())
    assert f"delete {marker.relative_to(trainers.root)} or run the command with --retry" in trainers.text()
    assert trainers.rows(name) == 0
    trainers.finish(*trainers.command(name, "--retry"))
    assert not marker.exists()
    trainers.assert_alike(name, "whole")


def test_a_checkpoint_of_another_run_is_refused(trainers, name):
    trainers.kill(name, AtEvent("open", r"\.writing-000006/state"))
    marker = newest(trainers.store(name)) / "complete.json"
    marker.write_text(marker.read_text().replace(trainers.store(name).name, "0123456789abcdef"))
    trainers.finish(*trainers.command(name), status=1)
    assert "has run '0123456789abcdef' where this training needs" in trainers.text()
    assert (trainers.store(name) / "failed.json").exists()


def test_an_error_of_the_machine_leaves_no_marker(trainers, name):
    folder = trainers.root / name / "store" / trainers.store("whole").name
    folder.mkdir(parents=True)
    (folder / "checkpoints").write_text("in the way")
    trainers.finish(*trainers.command(name), status=1)
    assert last_record(trainers, name)["status"] == "FAILED"
    assert not (folder / "failed.json").exists()
    (folder / "checkpoints").unlink()
    trainers.finish(*trainers.command(name))
    trainers.assert_alike(name, "whole")


def test_two_trainers_of_a_run_exclude_each_other_and_both_end_well(trainers, name):
    with ExitStack() as both:
        one = both.enter_context(begin(trainers, name, AfterRow(2), signal.SIGSTOP))
        both.callback(one.kill)
        wait_until_stopped(one.pid)
        two, begun = both.enter_context(begin(trainers, name)), ""
        both.callback(two.kill)
        while "is at work on this run; waiting for it" not in begun:
            line = two.stdout.readline()
            assert line, begun
            begun += line
        one.send_signal(signal.SIGCONT)
        first, second = one.communicate()[0], begun + two.communicate()[0]
    assert (one.returncode, two.returncode) == (0, 0), first + second
    assert f"training {STEPS} steps" in first
    assert "nothing to train" in second
    assert f"training {STEPS} steps" not in second
    trainers.assert_alike(name, "whole")
