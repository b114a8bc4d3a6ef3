"""The smoke experiment, run once for all pipeline tests in a copy of the repository."""

import pytest
from repository import Workspace, copy_repository


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A finished run of the smoke experiment. Tests must leave its files as they found them."""
    workspace = Workspace(copy_repository(tmp_path_factory.mktemp("smoke")))
    workspace.snakemake("--config", "experiment=smoke")
    return workspace


@pytest.fixture
def workspace(tmp_path):
    """A fresh copy of the repository without results."""
    return Workspace(copy_repository(tmp_path / "repository"))
