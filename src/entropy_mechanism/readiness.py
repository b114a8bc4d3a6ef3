"""What is wrong with targets, and with this machine for the jobs about to run, told before the first of them.

Light to import: the Snakefile asks when a run starts. What there is not is refused in dry runs too, and so are
data sets without their file, whatever is asked for; this machine is looked at for jobs that run, on it, alone.
"""

import difflib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from entropy_mechanism.config import ConfigError, FileSet, HubModel, HubSet, load_experiment
from entropy_mechanism.config_errors import options
from entropy_mechanism.paths import RESERVED, UNSANDBOXED_VARIABLE, Paths
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
        f"{folder} belongs to {_owner(folder)} and cannot be written; choose another folder with `results`"
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
        if rule == "train" or rule.startswith("sample"):
            policy = wildcards["run" if rule == "train" else "policy"]
            model = plan.runs[policy].model if rule == "train" else plan.policies[policy].model
            compute = plan.experiment.compute_of(model)
            if compute.engine == "vllm" and not own_environment and not importlib.util.find_spec("vllm"):
                found.append(
                    f"compute.{model} asks for engine vllm, and {sys.executable} has no vLLM; `make slurm GPU=1` "
                    "makes an environment with it, .venv-slurm (docs/hpc.md, Environment)"
                )
            if compute.device == "cuda" and here and not has_gpu(devices):
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


@dataclass(frozen=True)
class Makes:
    """What Snakemake knows to make: its rules, files of the experiment, and whether some rule makes a file."""

    rules: Collection[str]
    files: Collection[str]
    makes: Callable[[str], bool]

    def knows(self, name: str) -> bool:
        """Whether this is a rule, a file that one makes, or a file that is there."""
        return name in self.rules or Path(name).exists() or self.makes(name)


def missing_files(plan: Plan, paths: Paths, known: Makes) -> list[str]:
    """Data sets whose file is not there and made by no rule, by their keys; what was read before is not needed."""
    return [
        f"data.{name}.path: there is no {problems.path} (from {Path.cwd()}); correct the path"
        for name, problems in plan.experiment.data.items()
        if isinstance(problems, FileSet) and not known.knows(problems.path) and not Path(paths.data(name)).exists()
    ]


def unknown_targets(targets: Iterable[str], known: Makes, plan: Plan, paths: Paths, presets: Path) -> list[str]:
    """What is wrong with targets that there are not.

    Where an experiment in the folder `presets` has the figure or table, or a path is another experiment's, that is
    told; else what is like it.
    """
    found = []
    allowed = [*TARGETS, *plan.experiment.figures, *plan.experiment.tables]
    for target in targets:
        if known.knows(target):
            continue
        if "/" in target:
            found.append(_unknown_file(target, known, paths, presets))
            continue
        others = _with_item(target, presets)
        if others:
            told = f"but of {' and '.join(others)}: snakemake {target} --config experiment={others[0]}"
        else:
            told = f"{options(target, allowed)}, or the path of a file that is made"
        found.append(f"{target} is no target of {paths.experiment}{', ' if others else '; '}{told}")
    return found


def unknown_rules(names: Iterable[str], known: Makes, paths: Paths, presets: Path) -> list[str]:
    """What is wrong with rules or files that are to be forced, stopped at or left out, and that there are not."""
    return [
        _unknown_file(name, known, paths, presets)
        if "/" in name
        else f"{name} is no rule; {options(name, sorted(known.rules))}"
        for name in names
        if not known.knows(name)
    ]


def _unknown_file(target: str, known: Makes, paths: Paths, presets: Path) -> str:
    """Whose a file is that no rule makes, or which was meant."""
    path = os.path.relpath(target)
    owner = next(iter(Path(os.path.relpath(path, paths.results)).parts), "")  # none for the results folder itself
    own = f"{owner}.yaml"
    name = owner if (presets / own).exists() else own if Path(own).exists() else None
    if name and owner not in (paths.experiment, *RESERVED):
        return f"{target} is of experiment {owner}: snakemake {target} --config experiment={name}"
    close = difflib.get_close_matches(path, known.files, n=3, cutoff=0.8)
    told = f"did you mean {', '.join(close)}?" if close else f"its files are in {paths.root}"
    if owner != paths.experiment:
        told += " (those of an experiment of yours need --config experiment=FILE.yaml)"
    return f"{target} is no file of {paths.experiment}; {told}"


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


def _owner(folder: Path) -> str:
    """The user's name; the number where nobody has it, as in containers."""
    try:
        return folder.owner()
    except KeyError:
        return f"user {folder.stat().st_uid}"


def _missing_folder(key: str, folder: str | None) -> list[str]:
    if folder is None or Path(folder).expanduser().exists():
        return []
    return [
        f"{key}.folder: there is no {folder} (from {Path.cwd()}); correct the path, or leave it out to download"
    ]
