"""From an experiment to its runs, evaluations, figures and files. Pure: reads and writes nothing."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from entropy_mechanism.config import BASE, Experiment, HubSet, ProgramSet, RunConfig, RunFilter, RunGroup
from entropy_mechanism.config_errors import ConfigError, options


@dataclass(frozen=True)
class Run:
    """One training run."""

    model: str
    train_set: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """`{model}--{train_set}--{method}--s{seed}`."""
        return f"{self.model}--{self.train_set}--{self.method}--s{self.seed}"


@dataclass(frozen=True)
class Policy:
    """Something that answers benchmark problems: a base model or the final weights of a run."""

    model: str
    run: Run | None = None

    @property
    def name(self) -> str:
        """The run's name, or `{model}--base`."""
        return self.run.name if self.run else f"{self.model}--{BASE}"

    @property
    def method(self) -> str:
        """The run's method, or `base`."""
        return self.run.method if self.run else BASE

    @property
    def identity(self) -> dict[str, Any]:
        """Identity columns of analysis files; a base model has no training set and no seed."""
        if self.run:
            return {
                "policy": self.name,
                "model": self.model,
                "train_set": self.run.train_set,
                "method": self.run.method,
                "seed": self.run.seed,
            }
        return {"policy": self.name, "model": self.model, "train_set": None, "method": BASE, "seed": None}


@dataclass(frozen=True)
class Plan:
    """Everything an experiment needs, by name."""

    experiment: Experiment

    @cached_property
    def runs(self) -> dict[str, Run]:
        """All runs by name; combinations listed twice are trained once."""
        runs = (Run(*combination) for group in self.experiment.runs for combination in group.combinations())
        return {run.name: run for run in runs}

    @cached_property
    def models(self) -> list[str]:
        """Base models that some run starts from."""
        return _unique(run.model for run in self.runs.values())

    @cached_property
    def validations(self) -> dict[str, str]:
        """The data set that each run is validated on."""
        return {name: group.validation or self.experiment.validation for name, group in self._groups.items()}

    @cached_property
    def _groups(self) -> dict[str, RunGroup]:
        """The first group of the experiment's runs that lists each run."""
        groups: dict[str, RunGroup] = {}
        for group in self.experiment.runs:
            for combination in group.combinations():
                groups.setdefault(Run(*combination).name, group)
        return groups

    @cached_property
    def _asked(self) -> dict[str, set[str]]:
        """Benchmarks of each run, and for each base model those of all runs from it."""
        asked: dict[str, set[str]] = {}
        for group in self.experiment.runs:
            names = self.experiment.evaluation.benchmarks if group.benchmarks is None else group.benchmarks
            for combination in group.combinations():
                run = Run(*combination)
                for policy in (Policy(run.model), Policy(run.model, run)):
                    asked.setdefault(policy.name, set()).update(names)
        return asked

    def benchmarks(self, policy: str) -> list[str]:
        """The benchmarks that a policy answers, in the experiment's order; a base model those of its runs."""
        return [name for name in self.experiment.evaluation.benchmarks if name in self._asked[policy]]

    @cached_property
    def policies(self) -> dict[str, Policy]:
        """Every policy that is evaluated: the base models first, then the runs."""
        bases = [Policy(model) for model in self.models]
        trained = [Policy(run.model, run) for run in self.runs.values()]
        return {policy.name: policy for policy in bases + trained if self._asked[policy.name]}

    @cached_property
    def benchmark_sets(self) -> dict[tuple[str, ...], list[str]]:
        """Policies by the benchmarks they answer."""
        sets: dict[tuple[str, ...], list[str]] = {}
        for name in self.policies:
            sets.setdefault(tuple(self.benchmarks(name)), []).append(name)
        return sets

    @cached_property
    def data_sets(self) -> list[str]:
        """Data sets that a run, a validation or a benchmark uses, and the parts of those that are joined."""
        used = _unique([*self.trained_sets, *self.tested_sets])
        return _unique(part for name in used for part in (*self.experiment.parts_of(name), name))

    @cached_property
    def trained_sets(self) -> list[str]:
        """Data sets that some run is trained on."""
        return _unique(run.train_set for run in self.runs.values())

    @cached_property
    def tested_sets(self) -> list[str]:
        """Data sets that policies are measured on: those of validations and benchmarks."""
        asked = {name for names in self._asked.values() for name in names}
        benchmarks = self.experiment.evaluation.benchmarks.items()
        return _unique(
            [*self.validations.values(), *(benchmark.data for name, benchmark in benchmarks if name in asked)]
        )

    def is_code(self, data: str) -> bool:
        """Whether the problems of a data set are graded by running programs."""
        parts = self.experiment.sets_of(data)
        return any(isinstance(part, ProgramSet) or (isinstance(part, HubSet) and part.is_code) for part in parts)

    def train_sets(self, policy: str) -> list[str]:
        """Data sets whose problems a policy's clean scores leave out.

        For a run what it was trained on; for a base model what any run from it is trained on, so that the two
        can be compared on the same problems.
        """
        chosen = self.policies[policy]
        runs = [chosen.run] if chosen.run else [run for run in self.runs.values() if run.model == chosen.model]
        return _unique(run.train_set for run in runs)

    @cached_property
    def items(self) -> dict[str, RunFilter]:
        """Figures, then tables, by name."""
        tables = {str(name): chosen for name, chosen in self.experiment.tables.items()}
        return {**self.experiment.figures, **tables}

    def shown(self, item: str) -> list[Run]:
        """The runs that a figure or table shows, in the plan's order."""
        chosen = self.items[item]
        return [run for run in self.runs.values() if chosen.passes(run.model, run.train_set, run.method)]

    def shown_policies(self, item: str) -> list[Policy]:
        """The evaluated policies that a table shows: the base models its runs started from, then these runs."""
        runs = [run for run in self.shown(item) if run.name in self.policies]
        return [Policy(model) for model in _unique(run.model for run in runs)] + [
            Policy(run.model, run) for run in runs
        ]

    def references(self, name: str) -> list[Policy]:
        """The policies that a run is compared with, which answer all of its benchmarks; none for a base model."""
        run = self.policies[name].run
        if run is None:
            return []
        wanted = [method for method in self.experiment.evaluation.compare_with if method != run.method]
        others = [
            Policy(run.model) if method == BASE else Policy(run.model, replace(run, method=method))
            for method in wanted
        ]
        ours = set(self.benchmarks(name))
        return [other for other in others if other.name in self.policies and ours <= self._asked[other.name]]

    def run_config(self, name: str) -> RunConfig:
        """The fully resolved configuration of one run: what `run.yaml` holds. ConfigError for an unknown run."""
        if name not in self.runs:
            raise ConfigError(f"no run is named '{name}'; {options(name, self.runs)}")
        run = self.runs[name]
        method = self.experiment.methods[run.method]
        return RunConfig(
            run=name,
            model=run.model,
            train_set=run.train_set,
            method=run.method,
            seed=run.seed,
            advantage=method.advantage,
            objective=method.objective,
            regularisation=method.regularisation,
            aggregation=method.aggregation,
            training=self.experiment.training_of(run.method, self._groups[name]),
            prompt=self.experiment.data[run.train_set].prompt,
            validation_prompt=self.experiment.data[self.validations[name]].prompt,
            compute=self.experiment.compute_of(run.model),
        )


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
