"""What is wrong with folders, disks, downloads, servers or engines is named before any job."""

import errno
import fcntl
import re
import socket
from pathlib import Path

import pytest
from preflight_scene import (
    PAPER,
    ROOT,
    SMOKE,
    findings,
    problems,
    situation,
    the_problem,
)

from entropy_mechanism.config import load_experiment
from entropy_mechanism.paths import Paths
from entropy_mechanism.plan import Plan
from entropy_mechanism.shapes import PUBLISHED
from entropy_mechanism.stages.preflight import places, site_checks
from entropy_mechanism.stages.preflight.cluster import LATE

pytestmark = pytest.mark.usefixtures("slurm_installed")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "nothing can be written to .*: Disk quota exceeded"),
        (places.LockError(errno.ENOSYS, "Function not implemented"), "cannot be locked .* -o flock"),
    ],
)
def test_a_results_folder_that_cannot_be_used_is_named(answer, text, tmp_path):
    line = the_problem(situation(tmp_path, answers={"results": answer}))
    assert re.search(f"^error: .*{text}", line)


def test_a_file_system_that_hangs_is_named_and_not_touched_again(tmp_path, monkeypatch):
    touched = []
    monkeypatch.setattr(Path, "exists", lambda path: touched.append(path))
    monkeypatch.setattr(Path, "glob", lambda path, pattern: touched.append(path))
    for name, place in (("results", tmp_path / "x"), ("free for downloads", tmp_path / "hf/hub")):
        assert f"error: {place} does not answer within 2 s" in the_problem(
            situation(tmp_path, answers={name: LATE})
        )
    assert touched == []


def test_a_file_system_without_locks_is_told_from_one_that_cannot_be_written(tmp_path, monkeypatch):
    places.writable(tmp_path / "not" / "there")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(
        fcntl, "flock", lambda *arguments: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks"))
    )
    with pytest.raises(places.LockError):
        places.writable(tmp_path)


@pytest.mark.parametrize("kind", ["tmpfs", "overlay", "ext4", "xfs"])
@pytest.mark.parametrize("name", ["results", "the checkout", "Python's environment", "the hub's cache"])
def test_what_nodes_read_and_only_this_machine_sees_is_named_with_its_file_system(kind, name, tmp_path):
    line = the_problem(situation(tmp_path, answers={f"file system of {name}": kind}))
    assert line.startswith("warning: ")
    assert f"{name} ({kind})" in line


def test_the_file_system_of_a_path_is_that_of_the_deepest_mount(tmp_path):
    mounts = tmp_path / "mounts"
    (tmp_path / "a b" / "c").mkdir(parents=True)
    deep = str(tmp_path / "a b").replace(" ", "\\040")
    mounts.write_text(
        f"root / ext4 rw 0 0\nx {tmp_path} lustre rw 0 0\ny {deep} tmpfs rw 0 0\nz {deep} nfs4 rw 0 0\n"
    )
    assert places.file_system(tmp_path / "a b" / "c" / "new", mounts) == "nfs4"
    assert places.file_system(tmp_path / "other", mounts) == "lustre"
    assert places.file_system(Path("/"), mounts) == "ext4"
    assert places.file_system(Path("/"), tmp_path / "none") == ""


def test_too_little_disk_for_what_is_still_to_be_made_is_named(tmp_path, monkeypatch):
    """Four bytes a weight and two checkpoints of twelve, of runs without a manifest; PRIME trains two models."""
    least = sum(
        (4 + 24 * (2 if PAPER.run_config(name).advantage.estimator == "prime" else 1))
        * PUBLISHED[PAPER.experiment.models[run.model].id].parameters
        for name, run in PAPER.runs.items()
    )
    assert "about" in the_problem(situation(tmp_path, answers={"free": int(least)}))
    assert problems(situation(tmp_path, answers={"free": int(least * 1.2)})) == []
    for name in PAPER.runs:
        manifest = Path(Paths(tmp_path, "x").run_manifest(name))
        manifest.parent.mkdir(parents=True)
        manifest.touch()
    assert problems(situation(tmp_path, answers={"free": 10**12})) == []


def test_too_little_disk_for_downloads_counts_models_that_were_not_fetched(tmp_path, monkeypatch):
    """Two bytes a weight; on the disk of the results when the hub's cache is there, too."""
    ids = {PAPER.experiment.models[name].id for name in PAPER.models}
    weights = sum(2 * PUBLISHED[name].parameters for name in ids)
    monkeypatch.setattr(site_checks, "_storage", lambda plan, name: 0.0)
    assert "are needed" in the_problem(situation(tmp_path, answers={"free": int(weights * 0.99)}))
    assert problems(situation(tmp_path, answers={"free": int(weights * 1.01), "free for downloads": 0})) == []


@pytest.mark.parametrize("answer", [LATE, OSError("Connection refused")])
def test_a_tracking_server_that_cannot_be_reached_is_a_warning(answer, tmp_path):
    line = the_problem(situation(tmp_path, tracking_uri="http://tracks:5000", answers={"tracking": answer}))
    assert line.startswith("warning: tracking_uri http://tracks:5000 cannot be reached")
    assert "track sync" in line
    assert problems(situation(tmp_path, tracking_uri="http://tracks:5000", answers={"tracking": None})) == []


def test_reaching_a_server_takes_a_second_at_most_and_proxies_are_heeded(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        places.reach(f"http://127.0.0.1:{port}/path")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        places.reach("https://unknown.invalid")
    with pytest.raises(OSError, match="refused"):
        places.reach(f"http://127.0.0.1:{port}")


def test_downloads_are_announced_and_without_a_network_refused(tmp_path, monkeypatch):
    assert problems(situation(tmp_path)) == []
    (note,) = [str(one) for one in findings(situation(tmp_path)) if "downloaded" in str(one)]
    assert note.startswith("note: ")
    assert "snakemake --profile slurm data models" in note
    refused = the_problem(situation(tmp_path, answers={"hub": OSError("no route")}))
    assert refused.startswith("error: ")
    assert "(no route)" in refused
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in the_problem(situation(tmp_path))
    for name in PAPER.models:  # in the cache: data sets alone may be there, too
        folder = tmp_path / f"hf/hub/models--{PAPER.experiment.models[name].id.replace('/', '--')}/snapshots/c"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").touch()
    assert the_problem(situation(tmp_path)).startswith("warning: ")
    assert problems(situation(tmp_path, SMOKE)) == []


def test_an_engine_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(site_checks, "find_spec", lambda name: None if name == "vllm" else object())
    assert "make slurm GPU=1" in the_problem(situation(tmp_path))
    assert problems(situation(tmp_path, SMOKE)) == []


def test_runs_that_do_not_fit_their_gpus_are_named(tmp_path):
    settings = (ROOT / "config/experiments/paper.yaml").read_text().replace("gpu_gib: 80", "gpu_gib: 48")
    (tmp_path / "small.yaml").write_text(settings)
    line = the_problem(situation(tmp_path, Plan(load_experiment(tmp_path / "small.yaml"))))
    assert "its update needs" in line
