"""What is wrong with this machine for the jobs that are about to run, found before the first of them.

Light to import: the Snakefile asks when a run starts. Dry runs, other targets and other machines are not refused.
"""

import os
import shutil
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from entropy_mechanism.config import ConfigError, HubModel, HubSet, load_experiment
from entropy_mechanism.config_errors import options
from entropy_mechanism.paths import UNSANDBOXED_VARIABLE
from entropy_mechanism.plan import Plan

TARGETS = ("all", "data", "models", "training", "evaluation", "analysis", "figures", "tables", "report")
"""What can be asked for of any experiment, beside its figures and tables."""
GPUS = ("nvidia[0-9]*", "dxg", "kfd")
"""Devices of Nvidia's driver, of the Windows subsystem, of AMD's."""


def faults(
    plan: Plan,
    jobs: Iterable[tuple[str, Mapping[str, str]]],
    folders: Iterable[Path],
    here: bool,
    own_environment: bool = False,
    devices: str = "/dev",
) -> list[str]:
    """Why `jobs`, each a rule and its wildcards, cannot do their work; one for each key or folder to change.

    `folders` are those that jobs write to, where they exist. `here` says that jobs run on this machine, and not on
    nodes of a cluster; `own_environment` that they have programs of their own there, from conda or an image.
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
        programs = here and not own_environment and _programs(plan, rule, wildcards)
        if programs and not _can_run_programs():
            found.append(
                f"data.{programs} is graded by running programs in bubblewrap, and bwrap is not on the PATH; "
                "install it (Debian, Ubuntu: apt-get install bubblewrap; docs/grading-code.md)"
            )
        if here and (rule == "train" or rule.startswith("sample")) and not has_gpu(devices):
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


def unknown_targets(
    targets: Iterable[str], rules: Collection[str], plan: Plan, experiment_file: Path, presets: Path
) -> list[str]:
    """What is wrong with names of targets that are no rule's; a path is left to Snakemake, which knows the files.

    Where an experiment in the folder `presets` has the figure or table, that is told.
    """
    found = []
    allowed = [*TARGETS, *plan.experiment.figures, *plan.experiment.tables]
    for target in targets:
        if target in rules or "/" in target or Path(target).exists():
            continue
        others = _with_item(target, presets)
        if others:
            told = f"but of {' and '.join(others)}: snakemake {target} --config experiment={others[0]}"
        else:
            told = f"{options(target, allowed)}, or the path of a file that is made"
        found.append(f"{target} is no target of {experiment_file.stem}{', ' if others else '; '}{told}")
    return found


def _with_item(item: str, folder: Path) -> list[str]:
    """Names of the experiments in a folder that have a figure or table; first those that need no GPU."""
    names: dict[bool, list[str]] = {False: [], True: []}
    for path in sorted(folder.glob("*.yaml")):
        try:
            experiment = load_experiment(path)
        except (ConfigError, OSError):  # it is not the one that was asked for
            continue
        if item in experiment.figures or item in experiment.tables:
            gpus = any(experiment.compute_of(model).device == "cuda" for model in experiment.models)
            names[gpus].append(path.stem)
    return names[False] + names[True]


def _programs(plan: Plan, rule: str, wildcards: Mapping[str, str]) -> str | None:
    """A data set whose programs a job runs in the sandbox."""
    if rule == "train":
        run = wildcards["run"]
        data = [plan.runs[run].train_set, plan.validations[run]]
    elif rule == "grade":
        data = [plan.experiment.evaluation.benchmarks[wildcards["benchmark"]].data]
    else:
        return None
    return next(filter(plan.is_code, data), None)


def _can_run_programs() -> bool:
    """Whether jobs find bubblewrap: on the PATH, or beside the Python that runs them."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return os.environ.get(UNSANDBOXED_VARIABLE) == "1" or shutil.which("bwrap", path=places) is not None


def _missing_folder(key: str, folder: str | None) -> list[str]:
    if folder is None or Path(folder).expanduser().exists():
        return []
    return [
        f"{key}.folder: there is no {folder} (from {Path.cwd()}); correct the path, or leave it out to download"
    ]
