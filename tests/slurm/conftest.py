"""The cluster that all tests of a session share, and what they need of the smoke experiment."""

import pytest
from loopback import LOCAL, SLURM, Loopback


def pytest_addoption(parser):
    parser.addoption("--jobs", type=int, default=200, help="of the test that kills a tenth of them")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A copy of the repository beside a cluster of two nodes; nothing of either is left at the end."""
    cluster = Loopback(tmp_path_factory.mktemp("loopback"))
    yield cluster
    cluster.close()
    assert not cluster.cluster.exists()
    assert not cluster.processes(f"SLURM_CONF={cluster.cluster}/slurm.conf")


@pytest.fixture(scope="session")
def smoke(slurm):
    """What `snakemake --profile slurm` prints for the smoke experiment."""
    return slurm.snakemake("smoke.log", *SLURM, "--config", "experiment=smoke")


@pytest.fixture(scope="session")
def local(slurm):
    """The smoke experiment without Slurm, beside whatever asks for it first; its output goes to local.log."""
    return slurm.begin("local.log", *LOCAL, "--config", "experiment=smoke", "results=local")
