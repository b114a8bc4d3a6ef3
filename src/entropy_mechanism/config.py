"""The experiment as frozen, validated values. The only reader of YAML; imports neither torch nor mlflow.

`load_experiment` turns one file of `config/experiments/` into an `Experiment` or raises `ConfigError`, whose
message names the file, the key, what was found and what is allowed. The JSON schema that editors use is
generated from the same classes (`entropy-mechanism schema`).
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from entropy_mechanism.compute import Compute
from entropy_mechanism.config_errors import NAME_PATTERN, ConfigError, KeyedError, describe, options, shown
from entropy_mechanism.experiment import BASE, Experiment, RunConfig, RunGroup, Site
from entropy_mechanism.files import nearest
from entropy_mechanism.generated import ArithmeticSet, ProgramSet, Teacher, TinyModel, Warmup
from entropy_mechanism.hub import FileSet, HubModel, HubSet, JoinedSet
from entropy_mechanism.items import FigureName, FigureRuns, TableName
from entropy_mechanism.methods import (
    Advantage,
    Aggregation,
    Cispo,
    ClipCov,
    Clipping,
    Gspo,
    KlCov,
    Method,
    Objective,
    OwnObjective,
    PolicyGradient,
    PpoClip,
    Regularisation,
    RewardModel,
    Selection,
)
from entropy_mechanism.paths import RESERVED
from entropy_mechanism.settings import (
    Analysis,
    Benchmark,
    Decontamination,
    Evaluation,
    GraderName,
    PromptStyle,
    RunFilter,
    Training,
)


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses a key written twice, where YAML takes the last, and reads 4e-4 as a number."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name in seen:
                raise yaml.MarkedYAMLError(problem=f"key '{name}' is written twice", problem_mark=key.start_mark)
            seen.add(name)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises `ConfigError` naming the file (and line) when it cannot be read, is not YAML, or is not a mapping.
    """
    path = Path(path)
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if value is None:
        raise ConfigError(f"{path}: the file is empty")
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: found {shown(value)}; allowed: keys and values")
    return value


def load_experiment(path: Path | str) -> Experiment:
    """Read and validate an experiment file.

    Raises `ConfigError` with one line that names the file, the key, what was found and what is allowed.
    """
    raw = read_yaml(path)
    methods = raw.get("methods")
    if isinstance(methods, dict):
        try:
            raw = raw | {"methods": {name: _extended(name, methods) for name in methods}}
        except KeyedError as error:
            raise ConfigError(f"{path}: {error.key}: {error}") from None
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        written = methods if isinstance(methods, dict) else {}
        text = describe(error, Experiment, lambda location: _inherited(location, written))
        raise ConfigError(f"{path}: {text}") from None


def read_run_config(path: Path | str) -> RunConfig:
    """Read a `run.yaml`. Raises `ConfigError` like `load_experiment`."""
    try:
        return RunConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error, RunConfig)}") from None


def chosen(option: str, name: str, known: Mapping[str, Any]) -> Any:
    """The entry that a command-line option names. Raises `ConfigError` listing what there is."""
    if name not in known:
        raise ConfigError(f"{option}: '{name}' is not defined; {options(name, known)}")
    return known[name]


def named_paths(option: str, pairs: Iterable[str], known: Mapping[str, Any]) -> dict[str, Path]:
    """Files by name from the `name=file` of a command-line option, whose names are those of `known`.

    Raises `ConfigError` for another name, and where there is none.
    """
    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals:
            raise ConfigError(f"{option}: found {shown(pair)}; allowed: NAME=FILE")
        chosen(option, name, known)
        found[name] = Path(path)
    return found


def told_by_name(option: str, paths: Sequence[Path | str], known: Collection[str]) -> dict[str, Path]:
    """The files of a command-line option by their stems.

    Raises `ConfigError` for a stem that is not in `known`, and for two files of one.
    """
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        chosen(option, path.stem, dict.fromkeys(known))
        if path.stem in found:
            raise ConfigError(f"{option}: {found[path.stem]} and {path} are both '{path.stem}'; give one of them")
        found[path.stem] = path
    return found


def load_site(raw: dict[str, Any], path: Path | str = "config/config.yaml") -> Site:
    """Validate the site settings; Snakemake has merged `--config` values into them.

    Raises `ConfigError` also for a results folder that could not be written.
    """
    try:
        site = Site.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path} or --config: {describe(error, Site)}") from None
    results = Path(site.results).absolute()
    existing = nearest(results)
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        fault = "cannot be written" if existing.is_dir() else "is no folder"
        raise ConfigError(f"{path} or --config: results: found {shown(site.results)}, but {existing} {fault}")
    if site.shared_store and Path(site.shared_store).resolve().is_relative_to(results.resolve()):
        raise ConfigError(
            f"{path} or --config: shared_store: found {shown(site.shared_store)}, which is inside the results "
            "folder; allowed: a folder outside it, which others can reach"
        )
    return site


def experiment_path(
    name: str, folder: Path | str = "config/experiments", key: str = "config/config.yaml or --config: experiment"
) -> Path:
    """The file of a named experiment, or the path given; `key` says what names it.

    Raises `ConfigError` that lists the names there are, or when the file's name cannot name a results folder.
    """
    if name.endswith((".yaml", ".yml")):
        stem = Path(name).stem
        if stem in RESERVED or not re.fullmatch(NAME_PATTERN, stem):
            raise ConfigError(
                f"{key}: results are kept under the file's name, found {shown(stem)}; allowed: lower-case letters "
                f"and digits, with single - _ . @ + between them, but not {', '.join(RESERVED)}"
            )
        return Path(name)
    known = sorted(path.stem for path in Path(folder).glob("*.yaml"))
    if name not in known:
        raise ConfigError(
            f"{key}: {shown(name)} is not in {folder} nor the path of a .yaml file; {options(name, known)}"
        )
    return Path(folder) / f"{name}.yaml"


def experiment_name(path: Path) -> str:
    """What a user says for the file: the name of one of `config/experiments/`, else the path."""
    return path.stem if path.parent.name == "experiments" else str(path)


def _extended(name: str, methods: dict[str, Any], seen: tuple[str, ...] = ()) -> Any:
    """The raw settings of a method with everything it `extends` merged in."""
    method = methods[name]
    if not isinstance(method, dict) or method.get("extends") is None:
        return method
    base, key = method["extends"], f"methods.{name}.extends"
    others = [other for other in methods if other != name]
    if base not in others:
        raise KeyedError(key, f"{shown(base)} is not another method; {options(base, others)}")
    if name in seen:
        raise KeyedError(key, f"methods extend each other in a circle: {' -> '.join((*seen, name))}")
    inherited = _extended(base, methods, (*seen, name))
    return _merged(inherited, method)


def _inherited(location: tuple[str | int, ...], methods: Mapping[Any, Any]) -> bool:
    """Whether what stands at this location of the merged methods was written in another method."""
    if len(location) < 3 or location[0] != "methods":
        return False
    method, section = methods[location[1]], location[2]
    if not isinstance(method, dict) or "extends" not in method:
        return False
    own = method.get(section)
    return section not in method or (isinstance(own, dict) and len(location) > 3 and location[-1] not in own)


def _merged(base: Any, change: Any) -> Any:
    """`change` over `base`, key by key; an objective of another name replaces the inherited one whole."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    if "name" in change and change["name"] != base.get("name"):
        return change
    return base | {key: _merged(base.get(key), value) for key, value in change.items()}


__all__ = [
    "BASE",
    "Advantage",
    "Aggregation",
    "Analysis",
    "ArithmeticSet",
    "Benchmark",
    "Cispo",
    "ClipCov",
    "Clipping",
    "Compute",
    "ConfigError",
    "Decontamination",
    "Evaluation",
    "Experiment",
    "FigureName",
    "FigureRuns",
    "FileSet",
    "GraderName",
    "Gspo",
    "HubModel",
    "HubSet",
    "JoinedSet",
    "KlCov",
    "Method",
    "Objective",
    "OwnObjective",
    "PolicyGradient",
    "PpoClip",
    "ProgramSet",
    "PromptStyle",
    "Regularisation",
    "RewardModel",
    "RunConfig",
    "RunFilter",
    "RunGroup",
    "Selection",
    "Site",
    "TableName",
    "Teacher",
    "TinyModel",
    "Training",
    "Warmup",
    "experiment_name",
    "experiment_path",
    "load_experiment",
    "load_site",
    "read_run_config",
    "read_yaml",
]
