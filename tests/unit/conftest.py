"""Fixtures of the unit tests that several files use."""

import copy
import shutil

import pytest
from random_policies import random_policy


@pytest.fixture
def policy():
    """`random_policy` on one thread."""
    import torch

    torch.set_num_threads(1)
    return random_policy()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A migrated SQLite file, made once by the first use of a results folder: migrations take seconds."""
    from entropy_mechanism import tracking

    folder = tmp_path_factory.mktemp("store")
    (folder / "records").mkdir()
    assert tracking.sync(folder, experiment="another") == tracking.SyncResult()
    return folder / "mlflow.db"


@pytest.fixture
def results(tmp_path, empty_store, monkeypatch):
    """A results folder with an empty store; the working directory is beside it."""
    from entropy_mechanism import paths, tracking

    for name in (tracking.INVOCATION_VARIABLE, paths.ARTIFACT_LIMIT_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def frames():
    """Analysis frames of one model and seed (`figure_frames`)."""
    from figure_frames import make_frames

    return make_frames()


@pytest.fixture(scope="module")
def many():
    """Analysis frames of many models and two seeds."""
    from figure_frames import many_models

    return many_models()


@pytest.fixture(scope="module")
def several():
    """Analysis frames of both tasks, several training sets, algorithms and coefficients."""
    from figure_frames import several_settings

    return several_settings()


@pytest.fixture
def planned(tmp_path):
    """The plan of `planned_experiment.RAW` after an edit."""
    import yaml
    from planned_experiment import RAW

    from entropy_mechanism.config import load_experiment
    from entropy_mechanism.plan import Plan

    def plan(edit=lambda raw: None):
        raw = copy.deepcopy(RAW)
        edit(raw)
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(raw, sort_keys=False))
        return Plan(load_experiment(path))

    return plan


@pytest.fixture(scope="module")
def code_grader():
    """A grader of programs in one sandbox; skips where there is no bubblewrap."""
    from program_tests import stdio

    from entropy_mechanism.rewards.code import CodeGrader
    from entropy_mechanism.rewards.sandbox import Limits, SandboxError

    with CodeGrader(Limits(cpu=3, wall=30), workers=1) as made:
        try:
            made.grade_all(["print()"], [stdio([""], [""])])
        except SandboxError as error:
            pytest.skip(str(error))
        yield made


@pytest.fixture
def grade_code(code_grader):
    """The verdict on a program by its tests, whatever ran before."""

    def run(code, tests):
        code_grader._known.clear()
        return code_grader.grade_all([f"Here it is:\n```python\n{code}\n```\n"], [tests])[0]

    return run


@pytest.fixture
def slurm_installed(monkeypatch, tmp_path):
    """Slurm's commands, its plugin and vLLM are there, and nothing of the environment is a user's."""
    from entropy_mechanism.stages.preflight import site_checks, slurm_checks

    for module in (slurm_checks, site_checks):
        monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(slurm_checks.shutil, "which", lambda name: f"/usr/bin/{name}")
    for name in ("SBATCH_PARTITION", "SBATCH_ACCOUNT", "SBATCH_QOS", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.fixture
def datasets_cache(tmp_path, monkeypatch):
    """A cache of `datasets` of the test's own: nothing is found that another test or the user has downloaded."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "cache/downloads")
