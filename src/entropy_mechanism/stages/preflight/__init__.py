"""Looks for what makes the workflow hang or fail on a Slurm cluster, before anything is submitted."""

import time
from collections.abc import Sequence
from pathlib import Path

from entropy_mechanism.stages.preflight import site_checks, slurm_checks
from entropy_mechanism.stages.preflight.scene import Finding, Scene, look

HERE = (slurm_checks.commands, slurm_checks.plugin, slurm_checks.controller)
"""Of Slurm as it is on this machine."""
CLUSTER = (slurm_checks.statuses, slurm_checks.partitions, slurm_checks.jobs, slurm_checks.accounts)
"""Of a cluster that has said what it consists of; of one that has not, `controller` tells."""
SITE = (
    site_checks.results_folder,
    site_checks.shared,
    site_checks.room,
    site_checks.tracking,
    site_checks.hub,
    site_checks.engine,
    site_checks.gpu_memory,
)
"""Of what any workflow needs."""


def preflight(experiment: Path | None, config: Sequence[str], profile: Sequence[str] | None) -> int:
    """Print what was found, errors first; returns 1 when something would stop the workflow, else 0.

    `config` are `key=value` as of `snakemake --config`, `profile` names or files as of `snakemake --profile`.
    Raises ConfigError for an experiment or profile that cannot be used.
    """
    began = time.monotonic()
    scene = look(experiment, config, profile or ["slurm"])
    found = findings(scene)
    for level in ("error", "warning", "note"):
        for finding in (finding for finding in found if finding.level == level):
            print(finding)
    counts = {kind: sum(finding.level == kind for finding in found) for kind in ("error", "warning")}
    told = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items())
    verdict = "would not run" if counts["error"] else "nothing that would stop it was found"
    print(f"{scene.paths.experiment}: {verdict} ({told}, {time.monotonic() - began:.1f} s)")
    return int(counts["error"] > 0)


def findings(scene: Scene) -> list[Finding]:
    """Everything that the checks tell, in their order."""
    found = [finding for check in HERE for finding in check(scene)]
    if (cluster := scene.known) is not None:
        found += [finding for check in CLUSTER for finding in check(scene, cluster)]
    return found + [finding for check in SITE for finding in check(scene)]
