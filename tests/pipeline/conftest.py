"""The smoke experiment, run once for all pipeline tests in a copy of the repository."""

import fcntl

import pytest
from repository import Workspace, copy_repository


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, worker_id):
    """A finished run of the smoke experiment. Tests must leave its files as they found them.

    One worker of pytest-xdist runs it while others wait. Each has a copy: some tests change files for a while.
    """
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    finished, done = Workspace(shared / "smoke-of-all"), shared / "smoke-of-all.done"
    with (shared / "smoke-of-all.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            copy_repository(finished.root)
            finished.snakemake("--config", "experiment=smoke")
            done.touch()
    return finished.copy(tmp_path_factory.mktemp("smoke") / "repository")


@pytest.fixture
def workspace(tmp_path):
    """A fresh copy of the repository without results."""
    return Workspace(copy_repository(tmp_path / "repository"))
