"""What jobs will ask of the cluster, by plan and profiles."""

import os

import pytest
from preflight_scene import PAPER, PROFILE, ROOT, asking, commands

from entropy_mechanism import resources
from entropy_mechanism.shapes import PUBLISHED
from entropy_mechanism.stages.preflight import demands
from entropy_mechanism.stages.preflight.cluster import Cluster

pytestmark = pytest.mark.usefixtures("slurm_installed")


def test_the_needs_of_a_plan_are_those_of_its_jobs():
    """Every training and every policy is among them, once; nothing else asks for more."""
    needs = demands.needs(PAPER, "h100", PROFILE)
    counted = sum(
        1 + (int(need.what.rsplit(" and ", 1)[1].split()[0]) if " like it" in need.what else 0) for need in needs
    )
    assert counted == len(PAPER.runs) + len(PAPER.policies) + 3
    name = next(name for name, run in PAPER.runs.items() if run.model == "qwen2.5-32b")
    asked = resources.training(PAPER.run_config(name), PUBLISHED["Qwen/Qwen2.5-32B"], "h100")
    (need,) = [need for need in needs if need.nodes == 4 and need.mem_mb == asked.mem_mb]
    assert (need.cores, need.gres, need.minutes) == (asked.cores, "gpu:h100:8", 1440)


def test_what_a_site_sets_for_a_rule_is_what_is_checked():
    site = {
        "train": {"slurm_partition": "long", "gres": "gpu:h200:8", "mem_mb": 5, "cpus_per_task": 3, "nodes": 1}
    }
    needs = demands.needs(PAPER, None, PROFILE | asking(slurm_partition="gpu") | {"set-resources": site})
    trainings = [need for need in needs if need.rule == "train"]
    assert {(n.partition, n.gres, n.mem_mb, n.cores, n.nodes) for n in trainings} == {
        ("long", "gpu:h200:8", 5, 3, 1)
    }
    assert {need.partition for need in needs if need.rule != "train"} == {"gpu"}


def test_later_profiles_replace_the_keys_of_earlier_ones_as_for_snakemake(tmp_path, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    monkeypatch.chdir(ROOT)
    found = demands.read_profiles(["slurm"])
    assert found["executor"] == "slurm"
    assert found["default-resources"]["slurm_partition"] == "gpu"
    (tmp_path / "site.yaml").write_text("default-resources: {mem_mb: 1}\n")
    both = demands.read_profiles(["slurm", str(tmp_path / "site.yaml")])
    assert both == found | {"default-resources": {"mem_mb": 1}}
    with pytest.raises(OSError, match="no profile nowhere"):
        demands.read_profiles(["nowhere"])


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("accounting_storage/none", "squeue"),
        ("(null)", "squeue"),  # what newer versions write instead
        ("accounting_storage/slurmdbd", None),
    ],
)
def test_the_profile_asks_squeue_where_slurm_keeps_no_accounts(kind, command, tmp_path, monkeypatch):
    commands(tmp_path, scontrol=f'echo "AccountingStorageType   = {kind}"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(ROOT)
    assert demands.read_profiles(["slurm"]).get("slurm-status-command") == command
    assert Cluster(config={"AccountingStorageType": kind}).accounts_kept == (command is None)
