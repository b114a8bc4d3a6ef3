"""Fixtures of the unit tests."""

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
