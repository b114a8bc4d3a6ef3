"""The experiment as frozen, validated values. The only reader of YAML; imports neither torch nor mlflow.

`load_experiment` turns one file of `config/experiments/` into an `Experiment` or raises `ConfigError`, whose
message names the file, the key, what was found and what is allowed. The JSON schema that editors use is
generated from the same classes (`entropy-mechanism schema`).
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from entropy_mechanism.config_errors import ConfigError, describe, suggest

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+([.@+-]?[a-z0-9]+)*$")]
"""Lower-case words joined by single - . @ or +. `--` separates the parts of a run's name."""


class Strict(BaseModel):
    """Base of every section: immutable, and a key that is not defined is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# --- data sets and models -----------------------------------------------------------------------------------


class ArithmeticSet(Strict):
    """Generated chains of single-digit additions and subtractions modulo 10."""

    kind: Literal["arithmetic"]
    split: Literal["train", "validation", "test"]
    """Which share of all possible problems to draw from; the shares are disjoint."""
    operands: tuple[int, int]
    """Fewest and most operands of a problem."""
    problems: Count
    """Number of problems."""
    seed: int = 0
    """Seed of the draw."""

    @model_validator(mode="after")
    def _range(self) -> "ArithmeticSet":
        if not 2 <= self.operands[0] <= self.operands[1]:
            raise ValueError("operands must be [fewest, most] with 2 <= fewest <= most")
        return self


class Teacher(Strict):
    """The unreliable teacher a tiny base model imitates."""

    seed: int = 0
    """Seed of its table of reliabilities."""
    unreliable_share: Fraction = 0.6
    """Share of the table's entries (a, operator, b) on which the teacher is mostly wrong."""
    unreliable: tuple[Fraction, Fraction] = (0.1, 0.5)
    """Range of the probability of the right result on those entries."""
    reliable: tuple[Fraction, Fraction] = (0.8, 0.99)
    """Range of the probability of the right result on the others."""
    distractors: tuple[Positive, ...] = (0.6, 0.25, 0.15)
    """How the remaining probability is shared among wrong results."""


class Warmup(Strict):
    """Supervised training of a tiny base model on the teacher's solutions."""

    steps: Count
    """Optimiser steps."""
    batch: Count = 128
    """Solutions per step."""
    learning_rate: Positive = 3e-3
    """Peak rate of AdamW; it falls linearly to zero."""
    operands: tuple[int, int] = (2, 6)
    """Fewest and most operands of the problems shown."""
    problems: Count = 20_000
    """Number of different problems shown, all of the train split."""
    teacher: Teacher = Teacher()
    """Who writes the solutions."""


class TinyModel(Strict):
    """A Qwen2-architecture model small enough to train on a laptop."""

    kind: Literal["tiny"]
    layers: Count
    """Transformer blocks."""
    width: Count
    """Hidden size."""
    heads: Count
    """Attention heads; width / heads is the head size."""
    kv_heads: Count
    """Key-value heads."""
    tied: bool = False
    """Whether the output head shares the embedding's weights."""
    init_std: Positive = 0.08
    """Standard deviation of the initial weights."""
    seed: int = 0
    """Seed of initialisation and warm-up."""
    warmup: Warmup
    """How the base model is made."""

    @model_validator(mode="after")
    def _heads(self) -> "TinyModel":
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        return self


DataSet = Annotated[ArithmeticSet, Field(description="A data set.")]
Model = Annotated[TinyModel, Field(description="A base model.")]


# --- methods ------------------------------------------------------------------------------------------------


class Advantage(Strict):
    """How rewards become advantages."""

    estimator: Literal["grpo"] = "grpo"
    """grpo: (r - group mean) / (group standard deviation + epsilon), Eq. 3."""
    std: Literal["sample", "population"] = "sample"
    """Divisor of the group variance: n - 1 (the paper's code) or n."""
    epsilon: Positive = 1e-6
    """Added to the standard deviation."""


class Clipping(Strict):
    """Bounds of the importance ratio: it is clipped to [1 - clip_low, 1 + clip_high], Eq. 4."""

    clip_low: Annotated[float, Field(ge=0, le=1)] = 0.2
    """How far below 1 the ratio may go."""
    clip_high: Annotated[float, Field(ge=0)] = 0.2
    """How far above 1 the ratio may go; 0.28 is Clip-higher."""

    @model_validator(mode="after")
    def _order(self) -> "Clipping":
        if self.clip_low > self.clip_high:
            raise ValueError(
                f"clip bounds reversed: clip_low ({self.clip_low}) must not exceed clip_high ({self.clip_high})"
            )
        return self


class Selection(Strict):
    """Which tokens count when the highest covariances are looked for."""

    scope: Literal["minibatch", "microbatch", "rollout"] = "minibatch"
    """Tokens that are centred and ranked together: those of one update (the paper's text), of one micro-batch
    (the paper's code), or of the whole rollout."""
    policy: Literal["current", "old"] = "current"
    """Whose log-probabilities enter the covariance: the policy being updated (Eq. 10) or the sampling one.
    Scope `rollout` chooses once per rollout, before its first update, when both are the same."""
    min_tokens: Annotated[int, Field(ge=0)] = 0
    """Select at least this many tokens even if the fraction asks for fewer; the paper's code uses 1."""


class PolicyGradient(Strict):
    """Plain policy gradient -A log pi; strictly on-policy, so it wants one update per rollout."""

    name: Literal["policy-gradient"]


class PpoClip(Clipping):
    """PPO's clipped surrogate, Eq. 4."""

    name: Literal["ppo-clip"]


class ClipCov(Clipping, Selection):
    """Clip-Cov, Eq. 11-12: some tokens of high covariance give no gradient."""

    name: Literal["clip-cov"]
    fraction: Fraction = 2e-4
    """Share r of tokens detached."""
    covariance_low: float = 1.0
    """Lower end of the band from which tokens are drawn."""
    covariance_high: float = 5.0
    """Upper end of the band."""
    clip_low: Annotated[float, Field(ge=0, le=1)] = 1.0
    """As in ppo-clip; the paper's runs use 1 for both, a mild guard against extreme ratios."""
    clip_high: Annotated[float, Field(ge=0)] = 1.0
    """As in ppo-clip."""

    @model_validator(mode="after")
    def _band(self) -> "ClipCov":
        if self.covariance_low >= self.covariance_high:
            raise ValueError(
                f"band reversed: covariance_low ({self.covariance_low}) must be below "
                f"covariance_high ({self.covariance_high})"
            )
        return self


class KlCov(Selection):
    """KL-Cov, Eq. 13-14: tokens of the highest covariance are held to the sampling policy."""

    name: Literal["kl-cov"]
    fraction: Fraction = 2e-3
    """Share k of tokens penalised."""
    coefficient: Annotated[float, Field(ge=0)] = 1.0
    """Weight beta of the penalty."""


Objective = Annotated[PolicyGradient | PpoClip | ClipCov | KlCov, Field(discriminator="name")]


class Training(Strict):
    """The reinforcement-learning loop."""

    steps: Count
    """Rollout steps."""
    prompts: Count
    """Prompts per rollout step, after the group filter."""
    samples: Count
    """Responses per prompt: the group size G."""
    updates: Count
    """Optimiser updates per rollout step; the prompts are shared out evenly among them."""
    learning_rate: Positive
    """Constant rate of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's decoupled weight decay."""
    gradient_clip: Positive = 1.0
    """Largest norm of the gradient."""
    temperature: Positive = 1.0
    """Sampling temperature of rollouts; log-probabilities are of the tempered policy."""
    max_response: Count
    """Response tokens at most; a longer response is cut there and graded as it stands."""
    filter_groups: bool = True
    """Drop prompts whose responses are all right or all wrong, and draw further prompts in their place."""
    max_batches: Count = 10
    """Generation batches per rollout step at most, while too few prompts pass the filter."""
    validate_every: Count = 4
    """Rollout steps between validations."""
    checkpoint_every: Count = 32
    """Rollout steps between checkpoints."""
    micro_batch_tokens: Count = 65536
    """Padded tokens per forward pass at most."""
    logprob_chunk: Count = 2048
    """Tokens whose full-vocabulary logits are held at once."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type; weights stay in float32."""


TrainingOverride = create_model(
    "TrainingOverride",
    __base__=Strict,
    __doc__="Training settings that a method changes.",
    **{
        name: (field.rebuild_annotation() | None, Field(None, description=field.description))
        for name, field in Training.model_fields.items()
    },
)


class Method(Strict):
    """Advantage estimator and objective, and what of the training a method needs to be different."""

    title: str | None = None
    """Name in figures and tables."""
    advantage: Advantage = Advantage()
    """How rewards become advantages."""
    objective: Objective
    """What is minimised."""
    training: TrainingOverride | None = None
    """Training settings that differ from the experiment's."""


# --- the experiment -----------------------------------------------------------------------------------------


class RunGroup(Strict):
    """Every combination of the listed names becomes one run."""

    models: Annotated[list[str], Field(min_length=1)]
    """Names from `models`."""
    train_sets: Annotated[list[str], Field(min_length=1)]
    """Names from `data`."""
    methods: Annotated[list[str], Field(min_length=1)]
    """Names from `methods`."""
    seeds: Annotated[list[int], Field(min_length=1)]
    """Seeds of data order, sampling and token selection."""


ProtocolName = Annotated[str, Field(pattern=r"^(greedy|(avg|pass|maj)@[1-9][0-9]*)$")]
"""greedy, or avg@k, pass@k, maj@k of sampled responses."""


class Benchmark(Strict):
    """A test set and how it is scored."""

    data: str
    """Name from `data`."""
    protocols: Annotated[list[ProtocolName], Field(min_length=1)]
    """The scores to report: greedy, avg@k, pass@k, maj@k. The first one, greedy or avg@k, enters the averages."""

    @property
    def samples(self) -> int:
        """Sampled responses per problem: the k of avg@k, or the largest k of the others; 0 when all is greedy."""
        return max((int(name.split("@")[1]) for name in self.protocols if "@" in name), default=0)

    @model_validator(mode="after")
    def _protocols(self) -> "Benchmark":
        if self.protocols[0].startswith(("pass", "maj")):
            raise ValueError(
                f"the first protocol enters the averages: found {self.protocols[0]}; allowed: greedy or avg@k"
            )
        for name in self.protocols:
            if name.startswith("avg") and name != f"avg@{self.samples}":
                raise ValueError(f"{name} is the mean of all sampled responses, which are {self.samples} here")
        return self


class Evaluation(Strict):
    """Benchmarks on which base models and final policies are compared."""

    benchmarks: dict[Name, Benchmark]
    """Named test sets."""
    temperature: Positive = 0.6
    """Temperature of sampled responses."""
    max_response: Count
    """Response tokens at most."""
    seed: int = 0
    """Seed of sampling."""


class Analysis(Strict):
    """Settings of the law and of the entropy dynamics."""

    entropy: Literal[
        "entropy/sequence_mean/after_filter",
        "entropy/sequence_mean/before_filter",
        "entropy/token_mean/after_filter",
        "entropy/token_mean/before_filter",
    ] = "entropy/sequence_mean/after_filter"
    """The entropy that enters the law; the paper's Eq. 5 is the default."""
    forecast_fractions: list[Annotated[float, Field(gt=0, lt=1)]] = [0.15]
    """Shares of training on which the law is fitted to predict the rest."""
    resamples: Count = 2000
    """Bootstrap resamples of every interval."""
    smoothing: Count = 9
    """Steps of the centred moving mean in Fig 8."""
    seed: int = 0
    """Seed of the bootstrap."""


class RunFilter(Strict):
    """Which runs a figure or table shows; a list left out means all."""

    models: list[str] | None = None
    """Names from `models`."""
    train_sets: list[str] | None = None
    """Names from `data`."""
    methods: list[str] | None = None
    """Names from `methods`."""


FigureName = Literal["fig01", "fig02", "fig03", "fig05", "fig08", "fig11"]
TableName = Literal["table1", "table2"]


class Experiment(Strict):
    """One file of `config/experiments/`: the science, nothing about machines."""

    title: str
    """One line for the report."""
    data: dict[Name, DataSet]
    """Named data sets: for training, validation and benchmarks."""
    validation: str
    """Name from `data`: greedy accuracy on it is the R of the law."""
    models: dict[Name, Model]
    """Named base models."""
    methods: dict[Name, Method]
    """Named methods; `extends` takes over another method's settings."""
    training: Training
    """Settings of every run, unless a method says otherwise."""
    runs: Annotated[list[RunGroup], Field(min_length=1)]
    """Which combinations are trained."""
    evaluation: Evaluation
    """How base models and final policies are scored."""
    analysis: Analysis = Analysis()
    """Settings of the analyses."""
    figures: dict[FigureName, RunFilter] = {}
    """Figures to draw, each with the runs it shows."""
    tables: dict[TableName, RunFilter] = {}
    """Tables to write, each with the runs they show."""

    @model_validator(mode="after")
    def _references(self) -> "Experiment":
        _known("validation", self.validation, self.data, "data")
        for name, benchmark in self.evaluation.benchmarks.items():
            key = f"evaluation.benchmarks.{name}"
            _known(f"{key}.data", benchmark.data, self.data, "data")
        filters = {f"figures.{name}": value for name, value in self.figures.items()}
        filters |= {f"tables.{name}": value for name, value in self.tables.items()}
        groups = {f"runs[{index}]": group for index, group in enumerate(self.runs)}
        for key, group in (groups | filters).items():
            for field, defined, where in (
                ("models", self.models, "models"),
                ("train_sets", self.data, "data"),
                ("methods", self.methods, "methods"),
            ):
                for name in getattr(group, field) or ():
                    _known(f"{key}.{field}", name, defined, where)
        return self

    @model_validator(mode="after")
    def _possible(self) -> "Experiment":
        for name, method in self.methods.items():
            training = self.training_of(name)
            if method.advantage.estimator == "grpo" and training.samples < 2:
                raise KeyedError(
                    f"methods.{name}",
                    "GRPO compares the responses of a prompt with one another: training.samples is "
                    f"{training.samples}, allowed: 2 or more",
                )
            if training.prompts % training.updates:
                raise KeyedError(
                    f"methods.{name}",
                    f"training.prompts ({training.prompts}) must be a multiple of training.updates "
                    f"({training.updates})",
                )
            if method.objective.name == "policy-gradient" and training.updates != 1:
                raise KeyedError(
                    f"methods.{name}",
                    "objective policy-gradient is strictly on-policy: training.updates is "
                    f"{training.updates}, allowed: 1",
                )
        return self

    def training_of(self, method: str) -> Training:
        """The training settings of a method: the experiment's, with the method's changes."""
        override = self.methods[method].training
        changes = override.model_dump(exclude_none=True) if override else {}
        return self.training.model_copy(update=changes)


class KeyedError(ValueError):
    """A failed check that knows its key."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def _known(key: str, name: str, defined: dict[str, Any], where: str) -> None:
    if name not in defined:
        raise KeyedError(
            key, f"'{name}' is not defined in {where}; allowed: {', '.join(defined)}{suggest(name, defined)}"
        )


class RunConfig(Strict):
    """One run, fully resolved: the content of its `run.yaml`."""

    run: str
    model: str
    train_set: str
    method: str
    seed: int
    advantage: Advantage
    objective: Objective
    training: Training

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
        """What determines the result beside the data: everything but the names."""
        return self.model_dump(mode="json", include={"seed", "advantage", "objective", "training"})


class Site(Strict):
    """`config/config.yaml`: what belongs to the machine, not to the science."""

    experiment: str
    """A name from `config/experiments/`, or the path of an experiment file of your own."""
    results: str
    """Folder for everything that is made."""
    tracking_uri: str | None = None
    """Where MLflow records go; by default an SQLite file in the results folder."""


# --- reading ------------------------------------------------------------------------------------------------


class _UniqueKeyLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key written twice, where YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key '{key}' is written twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises `ConfigError` naming the file (and line) when it is missing, not YAML, or not a mapping.
    """
    path = Path(path)
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {error.problem}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected keys and values at the top level, found {type(value).__name__}")
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
        raise ConfigError(f"{path}: {describe(error, Experiment)}") from None


def read_run_config(path: Path | str) -> RunConfig:
    """Read a `run.yaml`. Raises `ConfigError` like `load_experiment`."""
    try:
        return RunConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error, RunConfig)}") from None


def load_site(raw: dict[str, Any], path: Path | str = "config/config.yaml") -> Site:
    """Validate the site settings; Snakemake has merged `--config` values into them."""
    try:
        return Site.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path} or --config: {describe(error, Site)}") from None


def experiment_path(name: str, folder: Path | str = "config/experiments") -> Path:
    """The file of a named experiment, or the path given. Raises `ConfigError` listing the names there are."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    known = sorted(path.stem for path in Path(folder).glob("*.yaml"))
    if name not in known:
        raise ConfigError(
            f"config/config.yaml or --config: experiment: '{name}' is not in {folder}; "
            f"allowed: {', '.join(known)}, or the path of a .yaml file{suggest(name, known)}"
        )
    return Path(folder) / f"{name}.yaml"


def _extended(name: str, methods: dict[str, Any], seen: tuple[str, ...] = ()) -> Any:
    """The raw settings of a method with everything it `extends` merged in."""
    method = methods[name]
    if not isinstance(method, dict) or "extends" not in method:
        return method
    base = method["extends"]
    key = f"methods.{name}.extends"
    others = [other for other in methods if other != name]
    if base not in others:
        raise KeyedError(
            key, f"'{base}' is not another method; allowed: {', '.join(others)}{suggest(base, others)}"
        )
    if name in seen:
        raise KeyedError(key, f"methods extend each other in a circle: {' -> '.join((*seen, name))}")
    inherited = _extended(base, methods, (*seen, name))
    own = {field: value for field, value in method.items() if field != "extends"}
    if isinstance(inherited, dict):
        inherited = {field: value for field, value in inherited.items() if field != "title"}
    return _merged(inherited, own)


def _merged(base: Any, change: Any) -> Any:
    """`change` over `base`, key by key; an objective of another name replaces the inherited one whole."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    if "name" in change and change["name"] != base.get("name"):
        return change
    return base | {key: _merged(base.get(key), value) for key, value in change.items()}
