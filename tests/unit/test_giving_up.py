"""When an attempt tells the workflow that another one would be in vain."""

import json
from contextlib import nullcontext

import pytest

from entropy_mechanism import memory, tracking
from entropy_mechanism.config import ConfigError
from entropy_mechanism.rl.errors import PermanentError
from entropy_mechanism.stages import launch, train
from entropy_mechanism.stages.peers import Peers
from entropy_mechanism.stages.stopping import UNFIT


@pytest.mark.parametrize(
    ("error", "vain"),
    [
        (PermanentError("the run"), True),
        (ConfigError("a setting"), True),
        (ValueError("an input"), True),
        (memory.DoesNotFit("the GPU"), True),
        (launch.UnfitError("GPUs of ranks"), True),
        (train.InVainError("ranks"), True),
        (ChildProcessError("a rank was killed"), False),
        (OSError("the disk"), False),
        (MemoryError("the machine"), False),
        (RuntimeError("a bug"), False),
        (SystemExit(75), False),
        (None, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_attempt_leaves_word_for_its_invocation_when_another_would_be_in_vain(
    error, vain, tmp_path, monkeypatch
):
    monkeypatch.setenv(tracking.INVOCATION_VARIABLE, "this one")
    marker = tmp_path / "gave-up.json"
    marker.write_text("left by an earlier attempt")
    with pytest.raises(type(error)) if error else nullcontext(), train._giving_up(marker):
        assert not marker.exists()
        if error:
            raise error
    assert marker.exists() == vain
    if vain:
        assert json.loads(marker.read_text()) == {"invocation": "this one", "error": str(error)}


def test_a_rank_whose_gpu_is_too_small_ends_with_a_status_of_its_own(tmp_path, monkeypatch, capsys):
    from entropy_mechanism.stages import training

    def refuse(*arguments):
        raise memory.DoesNotFit("r: its update needs 90 GiB")

    monkeypatch.setattr(train, "follow_launcher", lambda: None)
    monkeypatch.setattr(train, "read_run_config", lambda path: None)
    monkeypatch.setattr(training, "train_run", refuse)
    monkeypatch.setattr(train, "StopRequest", lambda *arguments, **options: None)
    with pytest.raises(SystemExit) as ended:
        train.train_rank(*[tmp_path] * 7)
    assert ended.value.code == UNFIT
    assert "error: r: its update needs 90 GiB" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # with another `compute` or on other GPUs the run goes on


@pytest.mark.parametrize(("status", "kind"), [(UNFIT, launch.UnfitError), (1, ChildProcessError)])
def test_the_launcher_tells_ranks_that_do_not_fit_from_others(status, kind, tmp_path, monkeypatch):
    rank = tmp_path / "rank"
    rank.write_text(f"#!/bin/sh\nexit {status}\n")
    rank.chmod(0o755)
    monkeypatch.setattr(launch.sys, "executable", str(rank))
    with pytest.raises(ChildProcessError) as raised:
        launch.launch([], 2, type("Never", (), {"reason": None})(), -1, Peers(), 1)
    assert type(raised.value) is kind
