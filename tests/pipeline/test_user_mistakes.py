"""Mistakes of a user: each ends in one clear line, leaves nothing broken, and the mended command goes through."""

import os
import re
import shutil
import subprocess
from contextlib import contextmanager

import pytest
import yaml
from small_disk import small_disk

from entropy_mechanism import readiness

RUN = "results/my/runs/nano--train--grpo--s1/manifest.json"
AS_OTHERS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
"""Root without its privilege to write everywhere."""


def write(workspace, change=lambda settings: None):
    """The smoke experiment with one benchmark as `my.yaml`, with whatever mistake is put into it."""
    settings = yaml.safe_load((workspace.root / "config/experiments/smoke.yaml").read_text())
    for name in ("medium", "hard"):
        del settings["data"][name], settings["evaluation"]["benchmarks"][name]
    change(settings)
    (workspace.root / "my.yaml").write_text(yaml.safe_dump(settings))


@pytest.fixture
def own(workspace):
    """A workspace with an experiment of one's own in it."""
    write(workspace)
    return workspace


def attempt(workspace, target, *arguments, before=()):
    done = subprocess.run(
        [*before, *workspace.command(target, "--config", "experiment=my.yaml", *arguments)],
        cwd=workspace.root,
        env=workspace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=570,
    )
    return done.returncode, done.stdout


def the_line(output):
    """The one line that says what is wrong; there is no traceback."""
    assert "Traceback" not in output, output
    (line,) = dict.fromkeys(line for line in output.splitlines() if line.startswith("error: "))
    return line


def refused_before_any_job(workspace, target, *arguments, **options):
    status, output = attempt(workspace, target, *arguments, **options)
    assert status == 1
    assert not re.search(r"^Job \d+: ", output, re.MULTILINE), output
    assert not list((workspace.root / ".snakemake").glob("locks/*"))
    return the_line(output)


def test_a_misspelt_method(own):
    write(own, lambda settings: settings["runs"][0]["methods"].append("kl-kov"))
    assert refused_before_any_job(own, RUN) == (
        "error: my.yaml: runs[0].methods[3]: 'kl-kov' is not defined in methods; allowed: grpo, kl-cov, on-policy "
        "(did you mean 'kl-cov'?)"
    )
    assert not own.results.joinpath("my").exists()
    write(own)
    assert own.planned(RUN, "--config", "experiment=my.yaml")["train"] == 1


def test_a_wrong_path_of_a_model(own):
    def wrong(settings):
        settings["models"]["nano"] = {"kind": "hub", "id": "mine", "folder": "models/mien"}
        settings["compute"] = {"nano": {"device": "cpu"}}

    write(own, wrong)
    line = refused_before_any_job(own, RUN)
    assert line.startswith(
        f"error: models.nano.folder: there is no models/mien (from {own.root}); correct the path"
    )
    assert not own.results.joinpath("my").exists()
    own.snakemake("data", "--config", "experiment=my.yaml")  # what does not need the model is not refused


def test_a_wrong_path_of_a_data_set(own):
    write(own, lambda settings: settings["data"].update(mine={"kind": "file", "path": "nope.jsonl"}))
    assert refused_before_any_job(own, RUN) == (
        f"error: my.yaml: data.mine.path: there is no nope.jsonl (from {own.root}); correct the path"
    )
    (own.root / "nope.jsonl").write_text('{"problem": "1+2", "answer": 3}\n')
    assert own.planned(RUN, "--config", "experiment=my.yaml")["train"] == 1


def test_a_file_or_a_rule_that_there_is_not(own):
    done = own.snakemake("-n", RUN, "results/tiny/figures/fig1.pdf", "-R", "fit_laww", check=False)
    assert done.returncode == 1
    other, wrong, rule = the_line(done.stdout).removeprefix("error: ").split(" | ")
    assert other == f"{RUN} is of experiment my: snakemake {RUN} --config experiment=my.yaml"
    assert "did you mean" in wrong
    assert "results/tiny/figures/fig01.pdf" in wrong
    assert rule.startswith("fit_laww is no rule; allowed: all, analysis, ")
    assert rule.endswith("(did you mean 'fit_law'?)")


def test_a_gpu_experiment_where_there_is_no_gpu(own, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write(own, lambda settings: settings.update(compute={"nano": {"device": "cuda"}}))
    line = refused_before_any_job(own, RUN)
    assert line.startswith(
        "error: compute.nano.device is cuda, and this machine shows no GPU; run on one that has it"
    )
    assert not own.results.joinpath("my").exists()
    assert own.planned(RUN, "--config", "experiment=my.yaml")["train"] == 1  # a plan is no mistake
    write(own, lambda settings: settings.update(compute={"nano": {"device": "cpu"}}))
    own.snakemake(RUN, "--config", "experiment=my.yaml")


def test_where_a_gpu_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia-uvm").touch()  # the driver is there, a GPU is not
    assert not readiness.has_gpu(str(tmp_path))
    (tmp_path / "nvidia0").touch()
    assert readiness.has_gpu(str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not readiness.has_gpu(str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert readiness.has_gpu(str(tmp_path))


@contextmanager
def of_somebody_else(folder):
    """A folder in which the user may not write."""
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    if os.getuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may write everywhere, and there is no setpriv to take that away")
        os.chown(folder, 65534, 65534)
    try:
        yield AS_OTHERS if os.getuid() == 0 else []
    finally:
        folder.chmod(0o755)
        if os.getuid() == 0:
            os.chown(folder, 0, 0)


def test_no_permission_for_the_results_folder(own):
    with of_somebody_else(own.root / "theirs") as before:
        line = refused_before_any_job(own, "data", "results=theirs", before=before)
        assert line == (
            "error: config/config.yaml or --config: results: found 'theirs', but "
            f"{own.root / 'theirs'} cannot be written"
        )
    assert attempt(own, "data", "results=theirs")[0] == 0


@pytest.mark.parametrize("name", ["my", "records", "store"])
def test_no_permission_for_a_folder_inside_it(own, name):
    with of_somebody_else(own.results / name) as before:
        line = refused_before_any_job(own, "data", before=before)
        assert line.startswith(f"error: results/{name} belongs to ")
        assert "cannot be written; choose another folder with `results`; nothing was started" in line
    assert attempt(own, "data")[0] == 0


@pytest.fixture
def disk(own):
    """A results folder on a file system of its own, 6 MB large."""
    with small_disk(own.results, "6m") as mounted:
        yield mounted


@pytest.mark.parametrize(("target", "left"), [("data", 0), ("data", 32 * 1024), (RUN, 96 * 1024)])
def test_no_space_on_the_disk(own, disk, target, left):
    workspace = own
    # MLflow logs a traceback of its own when its database is on the full disk, beside the line that is looked for.
    elsewhere = f"tracking_uri=sqlite:///{workspace.root}/tracking.db"
    if target == RUN:
        workspace.snakemake("models", "data", "--config", "experiment=my.yaml", elsewhere)
    disk.fill(leave=left)
    status, output = attempt(workspace, target, elsewhere)
    assert status == 1
    assert "Traceback" not in output, output
    # A job's log may have room for its line, or not: the last words tell it all the same.
    failed = [line for line in output.splitlines() if line.startswith("Failed: ")]
    assert failed, output
    for line in failed:
        assert re.fullmatch(
            "Failed: [^:]+: no space left on the file system of results(/[^;]+)?; free some, then run the same "
            "command again: what is finished is kept; its log: .+",
            line,
        )
    assert not list(workspace.results.glob("store/*/failed.json"))
    disk.empty()
    status, output = attempt(workspace, target, elsewhere)
    assert status == 0, output[-3000:]
