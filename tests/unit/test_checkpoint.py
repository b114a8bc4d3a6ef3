import json
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


def latest(*arguments, **options):
    found = checkpoint.newest_sound(*arguments, **options)
    return None if found is None else checkpoint.load(found)


def test_the_newest_checkpoint_is_loaded_and_two_are_kept(tmp_path):
    for step in (2, 4, 10):
        checkpoint.save(tmp_path, step, state(step))
    assert latest(tmp_path)["state"] == {"step": 10}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000004", "step-000010"]


def _umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_no_checkpoint_is_no_error(tmp_path):
    assert latest(tmp_path / "missing") is None


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
    assert latest(tmp_path, warnings.append)["state"] == {"step": 1}
    assert len(warnings) == 1
    assert "step-000002" in warnings[0]


def test_a_checkpoint_of_another_run_or_format_is_refused_and_kept(tmp_path):
    checkpoint.save(tmp_path, 1, state(1), run="one")
    assert latest(tmp_path, run="one")["state"] == {"step": 1}
    with pytest.raises(checkpoint.ForeignCheckpoint, match=r"step-000001 has run 'one' where .* needs 'two'"):
        latest(tmp_path, run="two")
    marker = tmp_path / "step-000001/complete.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"format": 1}))
    with pytest.raises(checkpoint.ForeignCheckpoint, match="has format 1 where this training needs 3; move"):
        latest(tmp_path, run="one")
    assert marker.exists()


def test_a_checkpoint_beyond_what_else_is_known_is_passed_over(tmp_path):
    checkpoint.save(tmp_path, 1, state(1))
    checkpoint.save(tmp_path, 2, state(2))
    warnings = []
    assert latest(tmp_path, warnings.append, last_step=1)["state"] == {"step": 1}
    assert "step-000002" in warnings[0]
    assert "known up to step 1 only" in warnings[0]


def test_a_file_that_cannot_be_read_at_present_costs_no_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, state(1))

    def fail(path):
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.files, "sha256", fail)
        with pytest.raises(OSError, match="Input/output error"):
            latest(tmp_path)
    assert latest(tmp_path)["state"] == {"step": 1}


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, state(1))

    def fail(value, handle):
        handle.write(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, 2, state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_checkpoints_are_in_the_order_of_their_steps_beyond_six_digits(tmp_path):
    for step in (999_998, 999_999, 1_000_000):
        checkpoint.save(tmp_path, step, state(step))
    assert latest(tmp_path)["state"] == {"step": 1_000_000}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_checkpoint_can_be_written_again_and_is_readable_by_a_group(tmp_path):
    checkpoint.save(tmp_path, 1, state(1))
    checkpoint.save(tmp_path, 1, state(7))
    assert latest(tmp_path)["state"] == {"step": 7}
    assert (tmp_path / "step-000001").stat().st_mode & 0o055 == 0o055 & ~_umask()


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
        loaded = latest(tmp_path)
        if loaded["step"]:
            assert torch.equal(loaded["w"], torch.full((300_000,), float(loaded["step"])))
        assert not list(tmp_path.glob(".writing-*"))
        newest = max(newest, loaded["step"])
    assert newest > 0


def test_files_of_others_among_the_checkpoints_stop_nothing(tmp_path):
    checkpoint.save(tmp_path, 3, state(3))
    (tmp_path / ".DS_Store").write_text("")
    (tmp_path / ".nfs0001").write_text("")
    assert latest(tmp_path)["state"] == {"step": 3}
