"""The experiment, one run of it, and the site settings, as frozen validated values."""

import itertools
from collections.abc import Collection, Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from entropy_mechanism.compute import Compute
from entropy_mechanism.config_errors import KeyedError, options, shown
from entropy_mechanism.credentials import check_address
from entropy_mechanism.hub import DataSet, HubModel, JoinedSet, Model, SingleSet
from entropy_mechanism.items import FIGURE_KEYS, OWN, SCORED, FigureKey, FigureRuns, TableKey
from entropy_mechanism.methods import (
    Advantage,
    Aggregation,
    Method,
    Objective,
    Regularisation,
    TrainingOverride,
)
from entropy_mechanism.paths import ARTIFACT_LIMIT_MB
from entropy_mechanism.settings import (
    Analysis,
    Decontamination,
    Evaluation,
    Name,
    PromptStyle,
    RunFilter,
    Seed,
    Strict,
    Training,
)

BASE = "base"
"""Method name of a policy that was not trained: the base model itself."""

Combination = tuple[str, str, str, int]
"""Model, train set, method and seed."""


class RunGroup(Strict):
    """Every combination of the listed names becomes one run."""

    models: Annotated[list[str], Field(min_length=1)]
    """Names from `models`."""
    train_sets: Annotated[list[str], Field(min_length=1)]
    """Names from `data`."""
    methods: Annotated[list[str], Field(min_length=1)]
    """Names from `methods`."""
    seeds: Annotated[list[Seed], Field(min_length=1)]
    """Seeds of data order, sampling and token selection."""
    validation: str | None = None
    """Name from `data`: greedy accuracy on it is the R of these runs; by default the experiment's `validation`."""
    benchmarks: list[str] | None = None
    """Names from `evaluation.benchmarks` that the policies of these runs answer; by default all. [] is none: then
    they are not evaluated."""
    training: TrainingOverride | None = None
    """Training settings of these runs that differ from the experiment's, `null` switching off what that has; a
    method's own go first."""

    def combinations(self) -> Iterator[Combination]:
        """(model, train set, method, seed) of every run."""
        return itertools.product(self.models, self.train_sets, self.methods, self.seeds)


class Experiment(Strict):
    """One file of `config/experiments/`: the science, nothing about machines."""

    title: str
    """One line for the report."""
    data: dict[Name, DataSet]
    """Named data sets: for training, validation and benchmarks."""
    validation: str
    """Name from `data`: greedy accuracy on it is the R of the law, for runs that do not name another."""
    models: dict[Name, Model]
    """Named base models."""
    methods: dict[Name, Method]
    """Named methods; `extends` takes over another method's settings."""
    training: Training
    """Settings of every run, unless its group of runs or its method says otherwise."""
    compute: dict[Name, Compute] = Field({})
    """Where runs of a model train, by the model's name."""
    runs: Annotated[list[RunGroup], Field(min_length=1)]
    """Which combinations are trained."""
    evaluation: Evaluation
    """How base models and final policies are scored."""
    decontamination: Decontamination = Decontamination()
    """When an evaluation problem counts as contained in a training set."""
    analysis: Analysis = Analysis()
    """Settings of the analyses."""
    figures: dict[FigureKey, FigureRuns] = Field({}, json_schema_extra=FIGURE_KEYS)
    """Figures to draw, each with the runs it shows."""
    tables: dict[TableKey, RunFilter] = Field({})
    """Tables to write, each with the runs they show."""

    @model_validator(mode="after")
    def _names(self) -> "Experiment":
        """Every name that is used is defined."""
        if BASE in self.methods:
            raise KeyedError("methods", f"'{BASE}' stands for the untrained models; choose another name")
        _known("validation", self.validation, self.data, "defined in data")
        for name, benchmark in self.evaluation.benchmarks.items():
            _known(f"evaluation.benchmarks.{name}.data", benchmark.data, self.data, "defined in data")
        for index, name in enumerate(self.evaluation.compare_with):
            _known(
                f"evaluation.compare_with[{index}]", name, [BASE, *self.methods], f"'{BASE}' or defined in methods"
            )
        if "comparison" in self.tables and not self.evaluation.compare_with:
            raise KeyedError(
                "tables.comparison", "there is nothing to compare with; list methods in evaluation.compare_with"
            )
        for name, settings in self.data.items():
            for position, part in enumerate(settings.parts if isinstance(settings, JoinedSet) else ()):
                others = [other for other, its in self.data.items() if not isinstance(its, JoinedSet)]
                _known(f"data.{name}.parts[{position}]", part, others, "a data set that is not joined itself")
        for name in self.compute:
            _known(f"compute.{name}", name, self.models, "defined in models")
        for index, group in enumerate(self.runs):
            known: dict[str, Collection[str]] = {
                "models": self.models,
                "train_sets": self.data,
                "methods": self.methods,
            }
            for field, defined in known.items():
                where = f"defined in {'data' if field == 'train_sets' else field}"
                for position, name in enumerate(getattr(group, field)):
                    _known(f"runs[{index}].{field}[{position}]", name, defined, where)
            if group.validation is not None:
                _known(f"runs[{index}].validation", group.validation, self.data, "defined in data")
            for position, name in enumerate(group.benchmarks or ()):
                listed = self.evaluation.benchmarks
                _known(f"runs[{index}].benchmarks[{position}]", name, listed, "defined in evaluation.benchmarks")
        return self

    @model_validator(mode="after")
    def _one_run(self) -> "Experiment":
        """A run that several groups list is the same in all."""
        seen: dict[Combination, RunGroup] = {}
        for index, group in enumerate(self.runs):
            for combination in group.combinations():
                other = seen.setdefault(combination, group)
                name = "--".join(map(str, combination[:3])) + f"--s{combination[3]}"
                found, before = group.validation or self.validation, other.validation or self.validation
                if found != before:
                    raise KeyedError(
                        f"runs[{index}].validation",
                        f"found '{found}' for {name}, which another group validates on '{before}'; a run has one",
                    )
                method = combination[2]
                if self.training_of(method, group) != self.training_of(method, other):
                    raise KeyedError(
                        f"runs[{index}].training", f"another group lists {name} with other training; a run has one"
                    )
        return self

    @model_validator(mode="after")
    def _shown(self) -> "Experiment":
        """Every figure and table has a run to show, and every name in its filter is one of a run."""
        runs = [combination[:3] for group in self.runs for combination in group.combinations()]
        used = [list(dict.fromkeys(names)) for names in zip(*runs, strict=True)]
        filters: dict[str, RunFilter] = {f"figures.{name}": chosen for name, chosen in self.figures.items()}
        filters |= {f"tables.{name}": chosen for name, chosen in self.tables.items()}
        for key, chosen in filters.items():
            for field, names in zip(("models", "train_sets", "methods"), used, strict=True):
                for position, name in enumerate(getattr(chosen, field) or ()):
                    _known(f"{key}.{field}[{position}]", name, names, "in any of the runs")
            if not any(chosen.passes(*run) for run in runs):
                raise KeyedError(
                    key,
                    "no run has this combination of models, train_sets and methods; see `runs` for what there is",
                )
        evaluated = [
            combination[:3]
            for group in self.runs
            if group.benchmarks != []
            for combination in group.combinations()
        ]
        for name in self.tables:
            if name in SCORED and not any(self.tables[name].passes(*run) for run in evaluated):
                raise KeyedError(
                    f"tables.{name}",
                    "shows scores, and every run it shows has `benchmarks: []`; name some in `runs`",
                )
        for name, item in self.figures.items():
            if name.startswith(OWN) != (item.code is not None):
                fault = (
                    "found; allowed: with names that begin with own_" if item.code else "required key is missing"
                )
                raise KeyedError(f"figures.{name}.code", fault)
        return self

    @model_validator(mode="after")
    def _recorded(self) -> "Experiment":
        """What is drawn from token records has a run that keeps them."""
        runs = [
            (*combination[:3], self.training_of(combination[2], group))
            for group in self.runs
            for combination in group.combinations()
        ]
        items: dict[str, RunFilter | None] = {
            "figures.fig08": self.figures.get("fig08"),
            "tables.table1": self.tables.get("table1"),
        }
        for key, chosen in items.items():
            if chosen is None:
                continue
            shown = [(run[2], training) for *run, training in runs if chosen.passes(*run)]
            fit, kind = shown, "run"
            if key == "figures.fig08":
                fit, kind = [run for run in shown if run[1].updates == 1], "on-policy run"
            if not fit:
                found = ", ".join(dict.fromkeys(method for method, _ in shown))
                raise KeyedError(
                    key, f"found {found}; allowed: with a strictly on-policy method (training.updates: 1)"
                )
            if not any(training.record_tokens_every for _, training in fit):
                raise KeyedError(
                    key,
                    f"is drawn from token records, and no {kind} it shows keeps any; set "
                    f"methods.{fit[0][0]}.training.record_tokens_every to 1 (every step) or more",
                )
        return self

    @model_validator(mode="after")
    def _trainable(self) -> "Experiment":
        """The training settings fit every method."""
        listed = [(name, index) for index, group in enumerate(self.runs) for name in group.methods]
        for name, index in dict.fromkeys([*((name, None) for name in self.methods), *listed]):
            method, training = self.methods[name], self.training_of(name, self._group(index))
            if method.advantage.estimator not in ("reinforce++", "own") and training.samples < 2:
                reason = f"{method.advantage.estimator} compares the responses of a prompt"
                raise self._unfit(name, index, "samples", reason, "2 or more")
            if training.prompts % training.updates:
                shared = "the prompts are shared out evenly among the updates"
                raise self._unfit(name, index, "prompts", shared, f"a multiple of updates ({training.updates})")
            if method.objective.name == "policy-gradient" and training.updates != 1:
                raise self._unfit(name, index, "updates", "objective policy-gradient is strictly on-policy", "1")
        return self

    @model_validator(mode="after")
    def _computable(self) -> "Experiment":
        """Flash attention has its device and its type."""
        runs = ((group, *combination) for group in self.runs for combination in group.combinations())
        for group, model, _, method, _ in runs:
            compute, dtype = self.compute_of(model), self.training_of(method, group).dtype
            if compute.attention == "flash_attention_2" and (compute.device, dtype) != ("cuda", "bfloat16"):
                raise KeyedError(
                    f"compute.{model}.attention",
                    f"found 'flash_attention_2' with device {compute.device} and dtype {dtype} of method "
                    f"'{method}'; allowed: with device cuda and training.dtype bfloat16",
                )
        return self

    @model_validator(mode="after")
    def _sound(self) -> "Experiment":
        """Nothing is tested on what it was trained on, and no two methods are one."""
        for index, group in enumerate(self.runs):
            key = f"runs[{index}].validation" if group.validation else "validation"
            tests = {key: group.validation or self.validation} | {
                f"evaluation.benchmarks.{name}.data": benchmark.data
                for name, benchmark in self.evaluation.benchmarks.items()
                if group.benchmarks is None or name in group.benchmarks
            }
            for name in group.train_sets:
                for key, tested in tests.items():
                    pairs = itertools.product(self.sets_of(tested), self.sets_of(name))
                    if any(one.overlaps(other) for one, other in pairs):
                        message = f"'{tested}' may hold problems of '{name}', which runs are trained on"
                        raise KeyedError(key, message)
        seen: dict[str, str] = {}
        for name in dict.fromkeys(name for group in self.runs for name in group.methods):
            method = self.methods[name].model_dump_json(exclude={"extends", "preset", "training"})
            science = method + self.training_of(name).model_dump_json()
            if science in seen:
                raise KeyedError(
                    f"methods.{name}", f"does the same as '{seen[science]}'; list one of the two in runs"
                )
            seen[science] = name
        return self

    def parts_of(self, data: str) -> list[str]:
        """The data sets that one consists of: for a joined set its parts, else itself."""
        settings = self.data[data]
        return settings.parts if isinstance(settings, JoinedSet) else [data]

    def sets_of(self, data: str) -> list[SingleSet]:
        """Their settings; none of them is joined itself."""
        parts = (self.data[name] for name in self.parts_of(data))
        return [part for part in parts if not isinstance(part, JoinedSet)]

    def prompt_of(self, benchmark: str) -> PromptStyle:
        """How the problems of a benchmark are put to a policy: its own choice, or else its data set's."""
        settings = self.evaluation.benchmarks[benchmark]
        return settings.prompt or self.data[settings.data].prompt

    def _group(self, index: int | None) -> RunGroup | None:
        return None if index is None else self.runs[index]

    def _unfit(self, method: str, index: int | None, field: str, reason: str, allowed: str) -> KeyedError:
        """The error of a training setting that a method cannot use, at the key where the setting was made."""
        group = self._group(index)
        places = [(f"methods.{method}.", self.methods[method].training)]
        places += [(f"runs[{index}].", group.training)] if group else []
        made = [place for place, override in places if override and field in override.model_fields_set]
        found = getattr(self.training_of(method, group), field)
        message = f"found {found}; allowed for method '{method}': {allowed}, since {reason}"
        return KeyedError(f"{made[0] if made else ''}training.{field}", message)

    def training_of(self, method: str, group: RunGroup | None = None) -> Training:
        """The training settings of a method in a group of runs: the experiment's, the group's, the method's.

        A setting that one of them writes counts, `null` too.
        """
        changes: dict[str, Any] = {}
        for override in (group.training if group else None, self.methods[method].training):
            changes |= override.model_dump() if override else {}
        return self.training.model_copy(update=changes)

    def compute_of(self, model: str) -> Compute:
        """Where runs of a model train."""
        compute = self.compute.get(model, Compute())
        usual = "cuda" if isinstance(self.models[model], HubModel) else "cpu"
        return compute if compute.device else compute.model_copy(update={"device": usual})


def _known(key: str, name: str, known: Collection[str], where: str) -> None:
    if name not in known:
        raise KeyedError(key, f"{shown(name)} is not {where}; {options(name, known)}")


class RunConfig(Strict):
    """One run, fully resolved: the content of its `run.yaml`."""

    run: str
    model: str
    train_set: str
    method: str
    seed: Seed
    advantage: Advantage
    objective: Objective
    regularisation: Regularisation
    aggregation: Aggregation
    training: Training
    prompt: PromptStyle = "plain"
    """How the problems of the training set are put to the policy."""
    validation_prompt: PromptStyle = "plain"
    """How those of the validation set are."""
    compute: Compute = Compute(device="cpu")

    @property
    def identity(self) -> dict[str, Any]:
        """Identity columns of analysis files."""
        return {
            "run": self.run,
            "model": self.model,
            "train_set": self.train_set,
            "method": self.method,
            "seed": self.seed,
            "updates_per_rollout": self.training.updates,
        }

    @property
    def science(self) -> dict[str, Any]:
        """What determines the result beside the data: everything but the names, and where it runs.

        The engine is part of it: its draws for a seed are its own.
        """
        settings = self.model_dump(mode="json", exclude={"run", "model", "train_set", "method", "compute"})
        for own in (settings["objective"], settings["advantage"]):
            if own.get("code"):  # its SHA-256 is there: a file that was moved is the same file
                own["code"] = own["code"].rpartition(":")[2]
        return settings | {"engine": self.compute.engine}


class Site(Strict):
    """`config/config.yaml`: what belongs to the machine, not to the science."""

    experiment: Annotated[str, Field(min_length=1)]
    """A name from `config/experiments/`, or the path of an experiment file of your own."""
    results: Annotated[str, Field(min_length=1)]
    """Folder for everything that is made."""
    tracking_uri: Annotated[str, AfterValidator(check_address)] | None = None
    """Where MLflow records go, without a password; by default an SQLite file in the results folder."""
    artifact_limit_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = ARTIFACT_LIMIT_MB
    """Outputs up to this size, in megabytes, are copied to MLflow, so that `restore` can bring them back."""
    shared_store: Annotated[str, Field(min_length=1)] | None = None
    """Folder where several results folders share finished runs; by default nothing is shared."""
    compare_with: Annotated[str, Field(min_length=1)] | None = None
    """Another experiment of the results folder, named as `experiment` is; the report shows it beside this one."""
    gpu_type: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None = None
    """GPUs that jobs ask a cluster for, by the name that `sinfo -o %G` shows; by default of any kind."""
    container: Annotated[str, Field(min_length=1)] | None = None
    """Image that jobs run in with `--software-deployment-method apptainer`: a file, or a registry's address."""
