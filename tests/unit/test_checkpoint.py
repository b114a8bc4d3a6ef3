import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from entropy_mechanism.rl import checkpoint


def state(step):
    return {"model": {"w": torch.full((4,), float(step))}, "state": {"step": step}}


def test_the_newest_checkpoint_is_loaded_and_two_are_kept(tmp_path):
    for step in (2, 4, 10):
        checkpoint.save(tmp_path, step, state(step))
    assert checkpoint.load_latest(tmp_path)["state"] == {"step": 10}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000004", "step-000010"]


def test_no_checkpoint_is_no_error(tmp_path):
    assert checkpoint.load_latest(tmp_path / "missing") is None


@pytest.mark.parametrize("damage", ["flip a byte", "cut short", "no marker", "no state", "empty marker"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, damage):
    checkpoint.save(tmp_path, 1, state(1))
    checkpoint.save(tmp_path, 2, state(2))
    newest = tmp_path / "step-000002"
    content = bytearray((newest / "state.pt").read_bytes())
    if damage == "flip a byte":
        content[len(content) // 2] ^= 1
        (newest / "state.pt").write_bytes(content)
    elif damage == "cut short":
        (newest / "state.pt").write_bytes(content[:-1])
    elif damage == "no marker":
        (newest / "complete.json").unlink()
    elif damage == "no state":
        (newest / "state.pt").unlink()
    else:
        (newest / "complete.json").write_text("")
    warnings = []
    assert checkpoint.load_latest(tmp_path, warnings.append)["state"] == {"step": 1}
    assert len(warnings) == 1
    assert "step-000002" in warnings[0]


def test_a_kill_at_any_moment_of_writing_leaves_a_sound_checkpoint(tmp_path):
    program = textwrap.dedent(
        f"""
        import torch
        from pathlib import Path
        from entropy_mechanism.rl import checkpoint
        checkpoint.save(Path({str(tmp_path)!r}), 0, {{"step": 0}})
        print("ready", flush=True)
        step = 1
        while True:
            weights = torch.full((300_000,), float(step))
            checkpoint.save(Path({str(tmp_path)!r}), step, {{"step": step, "w": weights}})
            step += 1
        """
    )
    newest = -1
    for delay in (0.005, 0.02, 0.037, 0.06):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
        loaded = checkpoint.load_latest(tmp_path)
        if loaded["step"]:
            assert torch.equal(loaded["w"], torch.full((300_000,), float(loaded["step"])))
        assert not list(tmp_path.glob(".writing-*"))
        newest = max(newest, loaded["step"])
    assert newest > 0
