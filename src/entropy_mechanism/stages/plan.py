"""Prints what an experiment would run and what that is expected to cost."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from entropy_mechanism import costs
from entropy_mechanism.config import (
    FileSet,
    HubModel,
    HubSet,
    RunConfig,
    TinyModel,
    load_experiment,
    read_run_config,
)
from entropy_mechanism.config_errors import ConfigError
from entropy_mechanism.costs import Cost, Scale
from entropy_mechanism.figures import registry
from entropy_mechanism.paths import FIXED
from entropy_mechanism.plan import Plan, Run
from entropy_mechanism.shapes import Shape
from entropy_mechanism.stages.memory import shape_of

_PARTS = {"eurus2-math-heldout": 1024, "eurus2-code-heldout": 1024, "kodcode-heldout": 500}
"""Problems of sources that share their rows with others."""
MOST_NAMES = 12
"""In a cell of the table."""


def print_plan(experiment: Path, gpus: int | None, gpu: str, calibrate: Path | None, markdown: bool) -> None:
    """Print the runs of an experiment, their expected cost, and the wall time on `gpus` GPUs or CPU cores.

    `calibrate` is the folder of a measured run of the same kind (run.yaml and metrics.parquet): its seconds and
    response lengths take the place of the assumed ones. `markdown` prints docs/reproducing.md's table instead.
    Raises ValueError when a run needs more devices than there are.
    """
    plan = Plan(load_experiment(experiment))
    registry.adopt(plan.experiment.figures)
    bill = Bill(plan, gpu, _scale(plan, calibrate, gpu) if calibrate else Scale())
    name = experiment.stem
    print("\n".join(bill.markdown(name) if markdown else bill.report(name, gpus)))


@dataclass(frozen=True)
class Bill:
    """The expected costs of a plan."""

    plan: Plan
    gpu: str
    scale: Scale

    @cached_property
    def runs(self) -> dict[str, Cost]:
        """Of every training."""
        return {
            name: costs.training(self.plan, name, self._shape(run.model), self._count, self.gpu, self.scale)
            for name, run in self.plan.runs.items()
        }

    @cached_property
    def answers(self) -> dict[str, Cost]:
        """Of every policy's answers to its benchmarks."""
        return {
            name: costs.evaluation(self.plan, name, self._shape(policy.model), self._count, self.gpu)
            for name, policy in self.plan.policies.items()
        }

    @cached_property
    def rest(self) -> float:
        """Core seconds of all other jobs of an experiment on CPUs; beside GPU hours they are nothing."""
        if self.unit == "GPU":
            return 0.0
        models = [self.plan.experiment.models[name] for name in self.plan.models]
        machine = costs.MACHINES["cpu"]
        return len(self.runs) * costs.SMALL_JOBS + sum(
            costs.warming_up(model, shape_of(model), machine) for model in models if isinstance(model, TinyModel)
        )

    @cached_property
    def unit(self) -> str:
        """What devices are counted in."""
        configs = [self.plan.run_config(name) for name in self.plan.runs]
        return "core" if all(run.compute.device == "cpu" for run in configs) else "GPU"

    @property
    def time(self) -> str:
        """What time is counted in."""
        return "hours" if self.unit == "GPU" else "minutes"

    @property
    def second(self) -> float:
        """Seconds of an hour or a minute."""
        return 3600.0 if self.unit == "GPU" else 60.0

    @property
    def scaled(self) -> float:
        """An hour in that time."""
        return 3600 / self.second

    @property
    def device_time(self) -> str:
        """GPU hours or core minutes."""
        return f"{self.unit} {self.time}"

    def report(self, name: str, gpus: int | None) -> list[str]:
        """Lines for a person: each run, then everything together. Raises ValueError for too few `gpus`."""
        plan, runs = self.plan, self.runs
        lines = [
            f"{name}: {len(plan.data_sets)} data sets, {len(plan.models)} models, {len(runs)} trainings, "
            f"{len(self.answers)} evaluated policies, {len(plan.items)} figures and tables",
            f"All that follows is an estimate for devices of kind {self.gpu if self.unit == 'GPU' else 'cpu'}; "
            "docs/reproducing.md states the sums.",
            "",
            f"{'run':<52} {'devices':>7} {'steps':>6} {self.time:>8} {self.device_time:>12}  "
            "sample/train/validate/other",
        ]
        for key, one in runs.items():
            parts = [
                f"{100 * part / one.seconds:.0f}" for part in (one.sample, one.train, one.validate, one.other)
            ]
            steps = plan.run_config(key).training.steps
            lines.append(
                f"{key:<52} {one.devices:>7} {steps:>6} {one.seconds / self.second:>8.2f} "
                f"{self.amount([key]):>12}  {'/'.join(parts)} %"
            )
        devices = gpus or max(one.devices for one in runs.values())
        jobs = [*runs.values(), *self.answers.values()]
        try:
            wall = costs.wall_seconds(jobs, devices) + self.rest / devices
        except ValueError as error:
            raise ValueError(f"--gpus: {error}") from None
        models = [plan.experiment.models[model] for model in plan.models]
        downloaded = [shape_of(model) for model in models if isinstance(model, HubModel) and not model.folder]
        weights = sum(2 * shape.parameters for shape in downloaded)
        sets = [plan.experiment.data[name] for name in plan.data_sets]
        hub = len({settings.source for settings in sets if isinstance(settings, HubSet)})
        stored = sum(one.storage for one in runs.values())
        lines += [
            "",
            f"training    {self.amount(runs)} {self.device_time}",
            f"evaluation  {_number(sum(one.device_hours for one in self.answers.values()) * self.scaled)} "
            f"{self.device_time}",
            f"wall time   {_number(wall / self.second)} {self.time} on {devices} {self.unit}s, without queues",
            f"storage     {_number(stored / 1e9)} GB: final weights, {costs.CHECKPOINTS} checkpoints and token "
            "records of each run",
            f"downloads   {_number(weights / 1e9)} GB of models, and {hub} published data sets",
        ]
        if self.rest:
            lines.insert(
                -3, f"other jobs  {_number(self.rest / self.second)} {self.device_time}: warm-ups, analyses"
            )
        return lines

    def markdown(self, name: str) -> list[str]:
        """The table from figure to runs, settings and cost; `new` counts a run where it is first shown."""
        lines = [
            "",  # so that the tables of several experiments can stand below each other
            f"### `{name}`",
            "",
            f"| item | runs | models | trained on | methods | training | {self.device_time} | new |",
            "|---|---|---|---|---|---|---|---|",
        ]
        counted: set[str] = set()
        for item in sorted(self.plan.items, key=_order):
            fixed = set(registry.entry(item).inputs) <= set(FIXED)
            shown: dict[str, Run] = {} if fixed else {run.name: run for run in self.plan.shown(item)}
            new = [key for key in shown if key not in counted]
            counted |= set(new)
            columns = [
                item,
                str(len(shown)),
                *(
                    _listed(getattr(run, field) for run in shown.values())
                    for field in ("model", "train_set", "method")
                ),
                "; ".join(dict.fromkeys(_training(self.plan.run_config(key)) for key in shown)) or "–",
                self.amount(shown),
                self.amount(new),
            ]
            lines.append(f"| {' | '.join(columns)} |")
        rest = [key for key in self.runs if key not in counted]
        lines.append(f"| no item of their own | {len(rest)} | | | | | {self.amount(rest)} | {self.amount(rest)} |")
        answers = sum(one.device_hours for one in self.answers.values())
        lines += [
            "",
            f"Together {len(self.runs)} trainings, {self.amount(self.runs)} {self.device_time}, and "
            f"{_number(answers * self.scaled)} for the answers of {len(self.answers)} "
            "policies to benchmarks.",
        ]
        return lines

    def amount(self, runs: Iterable[str]) -> str:
        """GPU hours, or core minutes, of some trainings."""
        return _number(sum(self.runs[name].device_hours for name in runs) * self.scaled)

    def _shape(self, model: str) -> Shape:
        return shape_of(self.plan.experiment.models[model])

    def _count(self, data: str) -> int:
        return _problems(self.plan, data)


def _order(item: str) -> tuple[bool, str]:
    """Figures by number, then everything else."""
    return not item.startswith("fig"), item


def _problems(plan: Plan, name: str) -> int:
    """Problems of a data set, before any is left out."""
    from entropy_mechanism.data.sources import SOURCES

    total = 0
    for settings in plan.experiment.sets_of(name):
        if isinstance(settings, HubSet):
            rows = _PARTS.get(settings.source, SOURCES[settings.source].rows[-1])
            total += min(rows, settings.limit or rows)
        elif isinstance(settings, FileSet):
            from entropy_mechanism.data.own import read_rows

            total += len(read_rows(Path(settings.path)))
        else:
            total += settings.problems
    return total


def _training(run: RunConfig) -> str:
    """The settings of a run that its cost depends on."""
    training = run.training
    updates = f"{training.updates} update{'s' if training.updates > 1 else ''}"
    return (
        f"{training.steps:,} steps of {training.prompts} × {training.samples}, {updates}, "
        f"rate {training.learning_rate:g}, ≤ {training.max_response:,} tokens"
    )


def _listed(names: Iterable[str]) -> str:
    """Different names, of many the first few."""
    different = list(dict.fromkeys(names))
    if len(different) > MOST_NAMES:
        different = [*different[: MOST_NAMES - 2], f"{len(different) - MOST_NAMES + 2} more"]
    return ", ".join(different) or "–"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _scale(plan: Plan, folder: Path, gpu: str) -> Scale:
    """What a measured run says about the machine. Raises ConfigError or ValueError where there is none."""
    import pandas as pd

    if folder.is_file():
        folder = folder.parent
    run = read_run_config(folder / "run.yaml")
    if run.model not in plan.experiment.models:
        raise ConfigError(f"--calibrate: {folder} is a run of '{run.model}', which the experiment does not define")
    # Without the first step, which holds the start, and the last, which only measures.
    metrics = pd.read_parquet(folder / "metrics.parquet").iloc[1:-1]
    if metrics.empty:
        raise ValueError(f"--calibrate: {folder} has fewer than three steps")
    measured = {
        "sample": metrics["time/sample"].mean(),
        "train": (metrics["time/logprob"] + metrics["time/update"]).mean(),
        "response": metrics["length/mean"].mean(),
    }
    shape = shape_of(plan.experiment.models[run.model])
    place = (costs.lengths_of(plan, run.model), costs.machine_of(run, gpu))
    return costs.calibrated(run, shape, *place, measured)
