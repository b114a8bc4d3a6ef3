"""The command `entropy-mechanism preflight` on this machine, with stand-ins for Slurm's commands."""

import os
import shutil
import socket
import subprocess
import threading
import time

import pytest
from preflight_scene import PAPER, ROOT, SMOKE, commands, problems, situation

from entropy_mechanism.config import ConfigError
from entropy_mechanism.stages.preflight import scene

pytestmark = pytest.mark.usefixtures("slurm_installed")


@pytest.mark.parametrize("plan", [PAPER, SMOKE])
def test_where_all_is_well_nothing_is_found(plan, tmp_path):
    assert problems(situation(tmp_path, plan)) == []


def test_a_results_folder_that_hangs_is_told_in_time(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(scene, "load_site", lambda raw: threading.Event().wait())
    with pytest.raises(ConfigError, match="does not answer within 2 s"):
        scene.look(None, [], ["slurm"])


def run(tmp_path, monkeypatch, capsys, *options, **scripts):
    """Status and lines of the command itself, with these stand-ins before everything else on PATH."""
    monkeypatch.undo()
    (tmp_path / "bin").mkdir()
    silent = dict.fromkeys(("sbatch", "squeue", "scancel", "sinfo", "scontrol", "sacct", "sacctmgr"), "sleep 60")
    commands(tmp_path / "bin", **silent | scripts)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(ROOT)
    from entropy_mechanism.cli import main

    began = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        main(["preflight", *options, "--config", "experiment=smoke", f"results={tmp_path}/results"])
    assert time.monotonic() - began < 3
    return ended.value.code, capsys.readouterr().out.splitlines()


def test_commands_that_hang_are_told_within_three_seconds(tmp_path, monkeypatch, capsys):
    status, lines = run(tmp_path, monkeypatch, capsys)
    assert status == 1
    assert any(
        line.startswith("error: Slurm's controller does not answer (`scontrol ping`: no answer)") for line in lines
    )
    assert lines[-1].startswith("smoke: would not run (")


def test_the_machine_itself_is_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        config = ["experiment=paper", f"results={tmp_path}", f"tracking_uri=http://127.0.0.1:{port}"]
        seen = scene.look(None, config, ["slurm"])
    assert (seen.answers["hub"], seen.answers["tracking"], seen.answers["results"]) == (None, None, None)
    assert seen.answers["free"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    for name, folder in {"results": tmp_path, "the checkout": ROOT, "the hub's cache": tmp_path}.items():
        told = subprocess.run(["df", "--output=fstype", folder], capture_output=True, text=True, check=True).stdout
        assert seen.answers[f"file system of {name}"] == told.split()[-1]
    assert scene.look(ROOT / "config/experiments/smoke.yaml", config, ["slurm"]).plan == SMOKE
    assert "Connection refused" in str(scene.look(None, config, ["slurm"]).answers["tracking"])


def test_wrong_options_are_named(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match="allowed: key=value"):
        scene.look(None, ["smoke"], ["slurm"])
    with pytest.raises(ConfigError, match="no profile nowhere"):
        scene.look(None, ["experiment=smoke", f"results={tmp_path}"], ["nowhere"])


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 4711"), OSError("No username set")])
def test_slurm_is_asked_about_a_user_without_a_name_by_the_users_number(monkeypatch, error):
    def nameless():
        raise error  # as in a container; OSError since Python 3.13

    monkeypatch.setattr(scene.getpass, "getuser", nameless)
    assert f"user={os.getuid()}" in scene._accounting()["sacctmgr"]
