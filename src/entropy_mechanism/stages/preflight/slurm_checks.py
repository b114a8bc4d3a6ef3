"""What makes jobs hang or fail on a Slurm cluster: one check after the other, each a generator of findings.

The first three look at this machine, the others at a cluster that is `known`.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from entropy_mechanism.stages.preflight import cluster
from entropy_mechanism.stages.preflight.cluster import Cluster
from entropy_mechanism.stages.preflight.scene import Finding, Scene

LONGEST_PAUSE = 180.0
"""Seconds between two looks of Snakemake's plugin at its jobs, at most."""


def commands(scene: Scene) -> Iterator[Finding]:
    """Slurm's commands are there."""
    if missing := [name for name in cluster.PROGRAMS if not shutil.which(name)]:
        yield Finding(
            "error",
            f"Slurm's commands are not on PATH here: {cluster.names(missing)}",
            "start from a login node of the cluster, and load the site's module for Slurm if there is one",
        )


def plugin(scene: Scene) -> Iterator[Finding]:
    """Snakemake's plugin for Slurm is installed."""
    modules = ("snakemake_executor_plugin_slurm", "snakemake_executor_plugin_slurm_jobstep")
    if not all(map(find_spec, modules)):
        yield Finding(
            "error",
            f"{sys.executable} has no snakemake-executor-plugin-slurm",
            "`make slurm` (with GPU=1 for GPUs), then `. .venv-slurm/bin/activate`",
        )


def controller(scene: Scene) -> Iterator[Finding]:
    """Slurm's controller answers, and to this user."""
    if scene.cluster is None:
        return
    if not scene.cluster.answers:
        said = " ".join(scene.cluster.ping.split())
        yield Finding(
            "error",
            f"Slurm's controller does not answer (`scontrol ping`: {said}), and Snakemake would hang with it",
            "try again later, or ask the site's support",
        )
    elif scene.cluster.unread:
        yield Finding(
            "error",
            f"Slurm's controller is up and does not tell its configuration: {scene.cluster.unread}",
            "try again; if it stays so, ask the site's support",
        )


def statuses(scene: Scene, known: Cluster) -> Iterator[Finding]:
    """Snakemake will learn that a job has ended."""
    squeue = scene.profile.get("slurm-status-command") == "squeue" or "sacct" not in scene.answers
    cure = "slurm-status-command: squeue in the site's file"
    if not squeue and not known.accounts_kept:
        yield Finding("error", "Slurm keeps no accounts of jobs and sacct would be asked, for ever", cure)
    elif not squeue:
        good, text = cluster.reply(scene.answers["sacct"])
        if not good:
            yield Finding("error", f"sacct, which tells when a job has ended, does not work: {text}", cure)
        else:
            yield Finding("note", "sacct will tell when a job has ended")
    else:
        why = "" if known.accounts_kept else ", since Slurm keeps no accounts of jobs"
        yield Finding("note", f"squeue will tell when a job has ended{why}")
        if known.min_job_age < LONGEST_PAUSE + 60:
            yield Finding(
                "error",
                f"squeue forgets a job {known.min_job_age:g} s after its end (MinJobAge) and may be asked "
                f"after {LONGEST_PAUSE:g} s, so that ends of jobs are missed",
                "ask the site for MinJobAge=300 (Slurm's default) or for accounting",
            )


def partitions(scene: Scene, known: Cluster) -> Iterator[Finding]:
    """The partitions that jobs go to are there and open."""
    listed = f"there are {cluster.names(known.partitions)}"
    for asked in dict.fromkeys(need.partition for need in scene.needs):
        if asked is None and not any(one.default for one in known.partitions.values()):
            cure = f"export SBATCH_PARTITION, or slurm_partition of default-resources in the site's file; {listed}"
            yield Finding("error", "no partition is named and the cluster has no default one", cure)
        for name in asked.split(",") if asked else ():
            if name not in known.partitions:
                cure = f"SBATCH_PARTITION, or slurm_partition in the site's file; {listed}"
                yield Finding("error", f"there is no partition '{name}'", cure)
    for need in scene.needs:
        partitions = known.asked(need)
        if partitions and all(one.state != "UP" for one in partitions):
            states = ", ".join(f"{one.name} is {one.state}" for one in partitions)
            yield Finding(
                "error", f"{need.what}: partition {states} and starts no jobs", f"choose another; {listed}"
            )
    exported, used = os.environ.get("SBATCH_PARTITION"), scene.defaults.get("slurm_partition")
    if exported and str(used) != exported:
        yield Finding(
            "warning",
            f"SBATCH_PARTITION={exported} is not used: default-resources of a site's file replace the profile's",
            f"write slurm_partition: {exported} there",
        )


def jobs(scene: Scene, known: Cluster) -> Iterator[Finding]:
    """Every job could start some time: GPUs, cores, memory, nodes and time limits are those of its partition."""
    for need in scene.needs:
        found = {one.name: cluster.obstacles(need, one) for one in known.asked(need)}
        if found and all(found.values()):
            yield from (Finding("error", *pair) for pair in next(iter(found.values())))
        elif found and all(cluster.resting(need, one) for one in known.asked(need) if not found[one.name]):
            yield Finding(
                "warning",
                f"{need.what}: nodes that fit are down or drained, so jobs will wait for them",
                "`sinfo --list-reasons` says why",
            )


def accounts(scene: Scene, known: Cluster) -> Iterator[Finding]:
    """Account and quality of service may be used, and in these partitions."""
    account, qos = (scene.defaults.get(name) and str(scene.defaults[name]) for name in ("slurm_account", "qos"))
    for one in {one.name: one for need in scene.needs for one in known.asked(need)}.values():
        for kind, value, allowed in (("account", account, one.accounts), ("QOS", qos, one.qos)):
            if value and allowed is not None and value not in allowed:
                cure = f"SBATCH_{kind.upper()}: one of {cluster.names(allowed)}, or another partition"
                yield Finding("error", f"partition {one.name} is closed to {kind} '{value}'", cure)
    good, text = cluster.reply(scene.answers.get("sacctmgr", (False, "")))
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 2] if good else []
    if not known.accounts_kept or not rows:
        return
    mine = {row[0] for row in rows}
    if account and account.lower() not in {name.lower() for name in mine}:
        yield Finding(
            "error", f"account '{account}' is not yours", f"SBATCH_ACCOUNT: one of {cluster.names(mine)}"
        )
        return
    open_to = {
        name for row in rows if not account or row[0].lower() == account.lower() for name in row[2].split(",")
    }
    if qos and qos not in open_to:
        yield Finding("error", f"QOS '{qos}' is not open to you", f"SBATCH_QOS: one of {cluster.names(open_to)}")
