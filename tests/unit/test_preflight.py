"""What `entropy-mechanism preflight` finds where all is well but one thing."""

import errno
import fcntl
import math
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from entropy_mechanism import resources
from entropy_mechanism.config import ConfigError, Site, load_experiment
from entropy_mechanism.paths import Paths
from entropy_mechanism.plan import Plan
from entropy_mechanism.shapes import PUBLISHED
from entropy_mechanism.stages import preflight
from entropy_mechanism.stages.preflight import cluster, demands, places, scene, site_checks, slurm_checks
from entropy_mechanism.stages.preflight.cluster import LATE, Cluster, Nodes, Partition

ROOT = Path(__file__).parents[2]
PAPER = Plan(load_experiment(ROOT / "config/experiments/paper.yaml"))
SMOKE = Plan(load_experiment(ROOT / "config/experiments/smoke.yaml"))
GPU_NODES = Nodes(4, 128, 1_500_000, {"h100": 8}, "idle")
GPU = Partition("gpu", True, "UP", 2880, math.inf, None, None, (GPU_NODES,))
CONFIG = {"AccountingStorageType": "accounting_storage/slurmdbd", "MinJobAge": "300 sec"}
WELL = Cluster("Slurmctld(primary) at head is UP", CONFIG, {"gpu": GPU})
PROFILE = {"cores": 2, "default-resources": {"mem_mb": 4000, "runtime": 30}}
ANSWERS = {
    "results": None,
    "free": 10**15,
    "free for downloads": 10**15,
    "hub": None,
    "sacct": (True, ""),
    "results folder": "nfs4",
    "sacctmgr": (True, "mine||normal,long\nother|gpu|normal\n"),
}


@pytest.fixture(autouse=True)
def _installed(monkeypatch, tmp_path):
    """Slurm's commands, its plugin and vLLM are there, and nothing of the environment is a user's."""
    for module in (slurm_checks, site_checks):
        monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(slurm_checks.shutil, "which", lambda name: f"/usr/bin/{name}")
    for name in ("SBATCH_PARTITION", "SBATCH_ACCOUNT", "SBATCH_QOS", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def situation(tmp_path, plan=PAPER, gpu_type=None, tracking_uri=None, profile=(), answers=(), **changes):
    """All is well, except for the changes."""
    site = Site(experiment="x", results=str(tmp_path), gpu_type=gpu_type, tracking_uri=tracking_uri)
    kinds = dict.fromkeys(("results", "the checkout", "Python's environment", "the hub's cache"), "nfs4")
    every = ANSWERS | {f"file system of {name}": kind for name, kind in kinds.items()} | dict(answers)
    known = {"profile": PROFILE | dict(profile), "cluster": WELL, "answers": every} | changes
    return scene.Scene(site, plan, Paths(tmp_path, "x"), **known)


def findings(seen):
    """Everything that the checks of the command tell."""
    return [finding for check in preflight.CHECKS for finding in check(seen)]


def problems(seen):
    """Without notes, as they are printed."""
    return [str(finding) for finding in findings(seen) if finding.level != "note"]


def the_problem(seen):
    """The only one."""
    (line,) = problems(seen)
    assert "\n" not in line
    return line


def with_partition(**changes):
    return replace(WELL, partitions={"gpu": replace(GPU, **changes)})


def with_nodes(**changes):
    return with_partition(nodes=(replace(GPU_NODES, **changes),))


@pytest.mark.parametrize("plan", [PAPER, SMOKE])
def test_where_all_is_well_nothing_is_found(plan, tmp_path):
    assert problems(situation(tmp_path, plan)) == []


@pytest.mark.parametrize(("missing", "where"), [("sbatch", "login node"), ("sinfo", "login node")])
def test_missing_commands_are_named(missing, where, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_checks.shutil, "which", lambda name: None if name == missing else name)
    line = the_problem(situation(tmp_path, cluster=None))
    assert line.startswith(f"error: Slurm's commands are not on PATH here: {missing};")
    assert where in line


def test_a_missing_plugin_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_checks, "find_spec", lambda name: None if name.endswith("slurm") else object())
    assert "make slurm" in the_problem(situation(tmp_path))


@pytest.mark.parametrize("ping", [LATE, "Slurmctld(primary) at head is DOWN", "scontrol: error: munge", None])
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


def asking(**resources):
    return {"default-resources": PROFILE["default-resources"] | resources}


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


def test_a_results_folder_that_hangs_is_told_in_time(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(scene, "load_site", lambda raw: threading.Event().wait())
    with pytest.raises(ConfigError, match="does not answer within 2 s"):
        scene.look(None, [], ["slurm"])


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


def commands(folder, **scripts):
    """Stand-ins for Slurm's commands, for what no real cluster of one machine does."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


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
