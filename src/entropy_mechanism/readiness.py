"""What is wrong with this machine for the jobs that are about to run, found before the first of them.

Light to import: the Snakefile asks when a run starts. Dry runs, other targets and other machines are not refused.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from entropy_mechanism.config import HubModel, HubSet
from entropy_mechanism.plan import Plan

GPUS = ("nvidia[0-9]*", "dxg", "kfd")
"""Devices of Nvidia's driver, of the Windows subsystem, of AMD's."""


def faults(
    plan: Plan,
    jobs: Iterable[tuple[str, Mapping[str, str]]],
    folders: Iterable[Path],
    here: bool,
    devices: str = "/dev",
) -> list[str]:
    """Why `jobs`, each a rule and its wildcards, cannot do their work; one for each key or folder to change.

    `folders` are those that jobs write to, where they exist. `here` says that jobs run on this machine, and not on
    nodes of a cluster.
    """
    found = [
        f"{folder} belongs to {folder.owner()} and cannot be written; choose another folder with `results`"
        for folder in folders
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK)
    ]
    for rule, wildcards in jobs:
        if rule == "fetch_model":
            settings = plan.experiment.models[wildcards["model"]]
            if isinstance(settings, HubModel):
                found += _missing_folder(f"models.{wildcards['model']}", settings.folder)
        elif rule == "prepare":
            problems = plan.experiment.data[wildcards["data"]]
            if isinstance(problems, HubSet):
                found += _missing_folder(f"data.{wildcards['data']}", problems.folder)
        elif here and (rule == "train" or rule.startswith("sample")) and not has_gpu(devices):
            policy = wildcards["run" if rule == "train" else "policy"]
            model = plan.runs[policy].model if rule == "train" else plan.policies[policy].model
            if plan.experiment.compute_of(model).device == "cuda":
                found.append(
                    f"compute.{model}.device is cuda, and this machine shows no GPU; run on one that has it, on a "
                    "cluster (docs/hpc.md), or write device: cpu"
                )
    return list(dict.fromkeys(found))


def has_gpu(devices: str = "/dev") -> bool:
    """Whether this machine shows a GPU and does not hide it from its programs."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    return any(any(Path(devices).glob(name)) for name in GPUS)


def _missing_folder(key: str, folder: str | None) -> list[str]:
    if folder is None or Path(folder).expanduser().exists():
        return []
    return [
        f"{key}.folder: there is no {folder} (from {Path.cwd()}); correct the path, or leave it out to download"
    ]
