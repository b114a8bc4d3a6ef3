"""What is wrong with a cluster, its partitions, accounts or nodes is named before any job."""

import math
import os
import threading
import time
from dataclasses import replace

import pytest
from preflight_scene import (
    CONFIG,
    GPU,
    GPU_NODES,
    PAPER,
    PROFILE,
    SMOKE,
    WELL,
    asking,
    findings,
    problems,
    situation,
    the_problem,
    with_nodes,
    with_partition,
)

from entropy_mechanism.stages.preflight import cluster, slurm_checks
from entropy_mechanism.stages.preflight.cluster import LATE, Cluster, Nodes, Partition

pytestmark = pytest.mark.usefixtures("slurm_installed")


@pytest.mark.parametrize(("missing", "where"), [("sbatch", "login node"), ("sinfo", "login node")])
def test_missing_commands_are_named(missing, where, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_checks.shutil, "which", lambda name: None if name == missing else name)
    line = the_problem(situation(tmp_path, cluster=None))
    assert line.startswith(f"error: Slurm's commands are not on PATH here: {missing};")
    assert where in line


def test_a_missing_plugin_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_checks, "find_spec", lambda name: None if name.endswith("slurm") else object())
    assert "make slurm" in the_problem(situation(tmp_path))


@pytest.mark.parametrize("ping", [LATE, "Slurmctld(primary) at head is DOWN", "scontrol: error: munge", ""])
def test_a_controller_that_does_not_answer_is_all_that_is_told_of_the_cluster(ping, tmp_path):
    line = the_problem(situation(tmp_path, cluster=Cluster(ping)))
    assert line.startswith("error: Slurm's controller does not answer")


def test_one_backup_controller_that_is_up_is_enough(tmp_path):
    ping = "Slurmctld(primary) at a is DOWN\nSlurmctld(backup) at b is UP\n"
    assert problems(situation(tmp_path, cluster=replace(WELL, ping=ping))) == []


def test_a_controller_that_does_not_tell_its_configuration_is_named(tmp_path):
    line = the_problem(situation(tmp_path, cluster=Cluster(WELL.ping, unread="`sinfo …`: Access denied")))
    assert "Access denied" in line


def test_what_will_tell_that_a_job_has_ended_is_said(tmp_path):
    assert any("sacct will tell" in str(one) for one in findings(situation(tmp_path)))
    none = replace(WELL, config=CONFIG | {"AccountingStorageType": "accounting_storage/none"})
    seen = situation(tmp_path, cluster=none, profile={"slurm-status-command": "squeue"})
    assert problems(seen) == []
    assert any("squeue will tell when a job has ended, since Slurm keeps no accounts" in str(one)
               for one in findings(seen))  # fmt: skip


def test_sacct_without_accounts_would_be_asked_for_ever(tmp_path):
    none = replace(WELL, config=CONFIG | {"AccountingStorageType": "accounting_storage/none"})
    line = the_problem(situation(tmp_path, cluster=none))
    assert "for ever; slurm-status-command: squeue" in line


@pytest.mark.parametrize("reply", [(False, "Connection refused"), LATE])
def test_a_sacct_that_does_not_work_is_named(reply, tmp_path):
    line = the_problem(situation(tmp_path, answers={"sacct": reply}))
    assert "does not work" in line
    assert "slurm-status-command: squeue" in line


@pytest.mark.parametrize(("age", "enough"), [("30 sec", False), ("239 sec", False), ("240 sec", True)])
def test_a_squeue_that_forgets_before_it_is_asked_again_is_named(age, enough, tmp_path):
    seen = situation(
        tmp_path,
        cluster=replace(WELL, config=CONFIG | {"MinJobAge": age}),
        profile={"slurm-status-command": "squeue"},
    )
    assert [("MinJobAge" in line) for line in problems(seen)] == ([] if enough else [True])


def test_partitions_that_are_not_there_are_named_with_those_that_are(tmp_path):
    line = the_problem(situation(tmp_path, profile=asking(slurm_partition="gpus,gpu")))
    assert "error: there is no partition 'gpus'; " in line
    assert "there are gpu" in line


def test_without_a_default_partition_one_has_to_be_named(tmp_path):
    seen = situation(tmp_path, cluster=with_partition(default=False))
    assert "export SBATCH_PARTITION" in the_problem(seen)
    assert problems(replace(seen, profile=PROFILE | asking(slurm_partition="gpu"))) == []


@pytest.mark.parametrize("state", ["DOWN", "DRAIN", "INACTIVE"])
def test_a_closed_partition_is_named(state, tmp_path):
    closed = replace(GPU, state=state)
    lines = problems(situation(tmp_path, cluster=replace(WELL, partitions={"gpu": closed})))
    assert lines
    assert all(f"partition gpu is {state} and starts no jobs" in line for line in lines)
    both = replace(WELL, partitions={"gpu": closed, "other": replace(GPU, name="other", default=False)})
    assert problems(situation(tmp_path, cluster=both, profile=asking(slurm_partition="gpu,other"))) == []


def test_a_partition_of_the_environment_that_a_site_file_hides_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    assert the_problem(situation(tmp_path)).startswith("warning: SBATCH_PARTITION=gpu is not used")
    assert problems(situation(tmp_path, profile=asking(slurm_partition="gpu"))) == []


def test_gpus_that_no_node_has_are_named_with_what_there_is(tmp_path):
    few = problems(situation(tmp_path, cluster=with_nodes(gpus={"h100": 4})))
    assert few
    assert all("8 GPUs on a node, and no node of partition gpu has more than 4 (types there: h100)" in line
               for line in few)  # fmt: skip
    other = problems(situation(tmp_path, gpu_type="a100"))
    assert all("of type a100 on a node" in line and "gpu_type in config/config.yaml" in line for line in other)
    assert any(line.startswith("error: training qwen2.5-32b") for line in other)
    assert any(line.startswith("error: answers of ") for line in other)
    assert problems(situation(tmp_path, gpu_type="h100")) == []
    assert problems(situation(tmp_path, cluster=with_nodes(gpus={"h100": 4, "": 4}))) == []


def test_a_time_limit_above_the_partitions_is_named_and_the_site_file_that_lowers_it_is_heeded(tmp_path):
    seen = situation(tmp_path, cluster=with_partition(minutes=720))
    lines = problems(seen)
    assert any("time limit 1440 min, and partition gpu allows 720" in line and "{train: {runtime: 720}}" in line
               for line in lines)  # fmt: skip
    rules = ["train", "sample", *(f"sample_{number}" for number in range(2, len(PAPER.benchmark_sets) + 1))]
    for form in ("12h", 720, "720"):
        assert (
            problems(replace(seen, profile=PROFILE | {"set-resources": {r: {"runtime": form} for r in rules}}))
            == []
        )
    assert problems(replace(seen, profile=PROFILE | {"set-resources": [f"{r}:runtime=720" for r in rules]})) == []


def test_the_time_limits_of_a_groups_jobs_add_up(tmp_path):
    """Two at a time: half as many layers as figures and tables, and the report."""
    experiment = PAPER.experiment
    needed = (math.ceil((len(experiment.figures) + len(experiment.tables)) / 2) + 1) * 30
    seen = situation(tmp_path, SMOKE, cluster=with_partition(minutes=needed - 1))
    (line,) = [line for line in problems(replace(seen, plan=PAPER)) if "figures" in line]
    assert f"time limit {needed} min" in line
    assert "runtime of default-resources" in line


@pytest.mark.parametrize(
    ("change", "text"),
    [({"cores": 63}, "64 cores on a node"), ({"mem_mb": 100_000}, "MB on a node"), ({"count": 3}, "has 3 such")],
)
def test_nodes_that_are_too_small_or_too_few_are_named(change, text, tmp_path):
    lines = problems(situation(tmp_path, cluster=with_nodes(**change)))
    assert lines
    assert all(text in line and line.startswith("error: ") for line in lines)
    assert any("qwen2.5-32b" in line for line in lines)


def test_what_each_of_two_nodes_has_in_part_is_not_enough(tmp_path):
    halves = (replace(GPU_NODES, cores=8), replace(GPU_NODES, gpus={}))
    assert any(
        "on each of 4 nodes" in line
        for line in problems(situation(tmp_path, cluster=with_partition(nodes=halves)))
    )


def test_a_partition_that_allows_fewer_nodes_is_named(tmp_path):
    lines = problems(situation(tmp_path, cluster=with_partition(max_nodes=2)))
    assert all("4 nodes, and partition gpu allows 2" in line for line in lines)
    assert lines


def test_a_job_that_fits_one_of_several_partitions_is_well(tmp_path):
    small = replace(GPU, name="small", default=False, minutes=60)
    seen = situation(tmp_path, cluster=replace(WELL, partitions={"gpu": GPU, "small": small}),
                     profile=asking(slurm_partition="small,gpu"))  # fmt: skip
    assert problems(seen) == []


def test_nodes_that_fit_and_do_not_work_are_a_warning(tmp_path):
    lines = problems(situation(tmp_path, cluster=with_nodes(state="drained")))
    assert lines
    assert all(line.startswith("warning: ") and "down or drained" in line for line in lines)
    for state in ("mixed", "allocated", "idle~", "completing", "reserved"):
        assert problems(situation(tmp_path, cluster=with_nodes(state=state))) == []


@pytest.mark.parametrize(
    ("kind", "resource", "field"), [("account", "slurm_account", "accounts"), ("QOS", "qos", "qos")]
)
def test_a_partition_that_is_closed_to_account_or_qos_is_named(kind, resource, field, tmp_path):
    value = {"slurm_account": "mine", "qos": "normal"}[resource]
    closed = with_partition(**{field: frozenset({"theirs"})})
    line = the_problem(situation(tmp_path, cluster=closed, profile=asking(**{resource: value})))
    assert f"partition gpu is closed to {kind} '{value}'; SBATCH_{kind.upper()}: one of theirs" in line
    open_ = with_partition(**{field: frozenset({"theirs", value})})
    assert problems(situation(tmp_path, cluster=open_, profile=asking(**{resource: value}))) == []


def test_accounts_and_qos_that_are_not_the_users_are_named(tmp_path):
    assert "account 'nobodys' is not yours; SBATCH_ACCOUNT: one of mine, other" in the_problem(
        situation(tmp_path, profile=asking(slurm_account="nobodys"))
    )
    assert "QOS 'long' is not open to you; SBATCH_QOS: one of normal" in the_problem(
        situation(tmp_path, profile=asking(slurm_account="other", qos="long"))
    )
    assert problems(situation(tmp_path, profile=asking(slurm_account="MINE", qos="long"))) == []


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("UNLIMITED", math.inf), ("INFINITE", math.inf), ("1-00:00:00", 1440), ("2-12", 3600), ("04:30:00", 270),
     ("30:00", 30), ("90", 90), ("1-12:30", 2190)],
)  # fmt: skip
def test_time_limits_are_read_as_slurm_writes_them(text, minutes):
    assert cluster.minutes_of(text) == minutes


@pytest.mark.parametrize(
    ("text", "gpus"),
    [("(null)", {}), ("gpu:2", {"": 2}), ("gpu:a100:8(S:0-1)", {"a100": 8}), ("gpu", {"": 1}),
     ("gpu:a100", {"a100": 1}), ("gpu:a:4(IDX:0-3),gpu:b:2,nvme:1", {"a": 4, "b": 2})],
)  # fmt: skip
def test_gpus_are_read_as_slurm_writes_them(text, gpus):
    assert cluster.gpus_of(text) == gpus


def test_a_question_that_hangs_holds_up_neither_the_others_nor_the_end(tmp_path):
    began, never = time.monotonic(), threading.Event()
    answers = cluster.together(
        {"hangs": never.wait, "answers": lambda: 1, "fails": lambda: os.stat(tmp_path / "no")}, 0.3
    )
    assert time.monotonic() - began < 1
    assert (answers["hangs"], answers["answers"]) == (LATE, 1)
    assert isinstance(answers["fails"], FileNotFoundError)
    never.set()


REPLIES = {
    "ping": (True, "Slurmctld(primary) at head is UP\n"),
    "config": (True, "Configuration data as of now\nMinJobAge               = 300 sec\n"),
    "partitions": (True, "PartitionName=gpu AllowAccounts=a,b AllowQos=ALL Default=YES MaxNodes=4 "
                         "MaxTime=1-00:00:00 State=UP\n"
                         "PartitionName=cpu AllowAccounts=ALL AllowQos=q MaxNodes=UNLIMITED State=DOWN\n"),
    "nodes": (True, "gpu|2|64+|512000+|gpu:a100:4(S:0-1)|idle\ngpu|1|64|512000|(null)|DRAINED\n"),
}  # fmt: skip


def test_a_cluster_is_read_as_slurm_writes_it():
    nodes = (Nodes(2, 64, 512000, {"a100": 4}, "idle"), Nodes(1, 64, 512000, {}, "drained"))
    assert cluster.described(REPLIES) == Cluster(
        "Slurmctld(primary) at head is UP\n",
        {"MinJobAge": "300 sec"},
        {
            "gpu": Partition("gpu", True, "UP", 1440, 4, frozenset({"a", "b"}), None, nodes),
            "cpu": Partition("cpu", False, "DOWN", math.inf, math.inf, None, frozenset({"q"})),
        },
    )


def test_what_a_cluster_does_not_tell_of_itself_is_named_with_the_command():
    refused = cluster.described(REPLIES | {"config": (False, "Access denied")})
    assert (refused.unread, refused.partitions) == ("`scontrol show config`: Access denied", {})
    silent = cluster.described(dict.fromkeys(REPLIES, cluster.reply(LATE)))
    assert not silent.answers
    assert silent.ping == "no answer"
