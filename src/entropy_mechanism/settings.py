"""The sections an experiment is made of: training, evaluation, analysis."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from entropy_mechanism.config_errors import NAME_PATTERN, PROTOCOL_PATTERN, KeyedError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Lower-case words joined by single - _ . @ or +. `--` separates the parts of a run's name."""
PromptStyle = Literal["plain", "paper-train", "paper-eval", "paper-eval-omni", "qwen25-math-cot", "code"]
"""How a problem is put to a policy; docs/data.md shows each style."""
Stop = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None
"""Tokens that end a response, as text."""
GraderName = Literal["strict", "paper"]
"""How answers are compared: docs/grading.md."""


class Strict(BaseModel):
    """Base of every section: immutable; unknown keys, values of another type, NaN and infinity are errors.

    The text below a field is its description in the schema, which alone reads it: pydantic would do so in every
    process, a sixth of a second each time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# --- training ---------------------------------------------------------------------------------------------


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
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type to compute in; weights, gradients' sums, optimiser and statistics are float32 either way. All policies
    answer the benchmarks in the experiment's own, whatever a method or a group of runs sets."""
    gradient_clip: Positive = 1.0
    """Largest norm of the gradient."""
    temperature: Positive = 1.0
    """Sampling temperature of rollouts; log-probabilities are of the tempered policy."""
    max_response: Count
    """Response tokens at most; a longer response is cut there and graded as it stands."""
    grader: GraderName = "strict"
    """How answers are compared, in rollouts and validation. strict: numbers exactly, all else by math-verify.
    paper: as the paper's code does, right when any of three comparisons says so. Both agree on integers."""
    stop: Stop = None
    """Tokens that end a response; by default the tokenizer's end-of-sequence token alone."""
    filter_groups: bool = True
    """Drop prompts whose responses are all right or all wrong, and draw further prompts in their place."""
    max_batches: Count = 10
    """Generation batches per rollout step at most, while too few prompts pass the filter."""
    validate_every: Count = 4
    """Rollout steps between validations."""
    checkpoint_every: Count = 32
    """Rollout steps between checkpoints."""
    final: Literal["last", "best"] = "last"
    """Which policy is the result: the last, or the first of the highest validation accuracy."""
    importance_cap: Positive | None = None
    """Weigh each token's loss by min(pi_trainer / pi_engine, this): truncated importance sampling."""
    record_tokens_every: Annotated[int, Field(ge=0)] = 0
    """Rollout steps between records of every token, written to the run's store folder; 0 records none."""
    measure_entropy_change_every: Annotated[int, Field(ge=0)] = 0
    """Rollout steps between measurements of how the updates change the entropy after the same prefixes, beside
    Lemma 1's prediction from the change of the logits. Each reads the rollout twice more; 0 measures none."""
    max_skipped_updates: Annotated[int, Field(ge=0)] = 10
    """Updates with a loss or gradient that is not finite after which the run stops for good."""
    micro_batch_tokens: Count = 65536
    """Padded tokens per forward pass at most."""
    logprob_chunk: Count = 1024
    """Tokens whose full-vocabulary logits are held at once."""


# --- evaluation, analysis ---------------------------------------------------------------------------------


ProtocolName = Annotated[str, Field(pattern=PROTOCOL_PATTERN)]
"""greedy, or avg@k, pass@k, maj@k of sampled responses."""


class Benchmark(Strict):
    """A test set and how it is scored."""

    data: str
    """Name from `data`."""
    protocols: Annotated[list[ProtocolName], Field(min_length=1)]
    """The scores to report: greedy, avg@k, pass@k, maj@k. The first one, greedy or avg@k, enters the averages."""
    prompt: PromptStyle | None = None
    """How its problems are put to a policy; by default as the data set says."""
    temperature: Positive | None = None
    """Temperature of its sampled responses; by default the evaluation's."""
    max_response: Count | None = None
    """Response tokens at most; by default the evaluation's."""

    @property
    def samples(self) -> int:
        """Sampled responses per problem: the k of avg@k, or the largest k of the others; 0 when all is greedy."""
        return max((int(name.split("@")[1]) for name in self.protocols if "@" in name), default=0)

    @model_validator(mode="after")
    def _protocols(self) -> "Benchmark":
        if self.protocols[0].startswith(("pass", "maj")):
            raise KeyedError(
                "protocols[0]",
                f"the first protocol enters the averages: found '{self.protocols[0]}'; allowed: greedy or avg@k",
            )
        for index, name in enumerate(self.protocols):
            key = f"protocols[{index}]"
            if name in self.protocols[:index]:
                raise KeyedError(key, f"'{name}' is written twice")
            if name.startswith("avg@") and name != f"avg@{self.samples}":
                raise KeyedError(
                    key,
                    f"found '{name}', which is the mean of all sampled responses; the other protocols ask for "
                    f"{self.samples}; allowed: avg@{self.samples}",
                )
        return self


class Evaluation(Strict):
    """Benchmarks on which base models and final policies are compared."""

    benchmarks: Annotated[dict[Name, Benchmark], Field(min_length=1)]
    """Named test sets."""
    temperature: Positive = 0.6
    """Temperature of sampled responses."""
    grader: GraderName = "strict"
    """How answers are compared; see `training.grader`."""
    max_response: Count
    """Response tokens at most."""
    stop: Stop = None
    """Tokens that end a response; by default the tokenizer's end-of-sequence token alone. Every model that answers
    benchmarks must know them."""
    compare_with: list[str] = Field([])
    """Methods, or `base`, that each run is compared with problem by problem: those of its model, set and seed."""
    seed: Seed = 0
    """Seed of sampling."""


class Decontamination(Strict):
    """When an evaluation problem counts as contained in a training set."""

    words: Count = 13
    """Length n of the word n-grams that are compared; a shorter problem counts when its whole text is found."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of a problem's n-grams that must stand in one and the same training problem."""


class Analysis(Strict):
    """Settings of the law and of the entropy dynamics."""

    forecast_fractions: list[Annotated[float, Field(gt=0, lt=1)]] = Field([0.05, 0.10, 0.15, 0.25, 0.50])
    """Shares of training on which the law is fitted to predict the rest."""
    resamples: Count = 2000
    """Bootstrap resamples of every interval."""
    smoothing: Count = 9
    """Steps of the centred moving mean in Fig 8; an odd number."""
    seed: Seed = 0
    """Seed of the bootstrap."""

    @model_validator(mode="after")
    def _usable(self) -> "Analysis":
        if self.smoothing % 2 == 0:
            raise KeyedError(
                "smoothing", f"found {self.smoothing}; allowed: odd numbers, so that the window has a centre"
            )
        if 0.15 not in self.forecast_fractions:
            raise KeyedError(
                "forecast_fractions",
                f"found {self.forecast_fractions}; allowed: lists with 0.15, which Fig 5 shows",
            )
        return self


class RunFilter(Strict):
    """Which runs a figure or table shows; a list left out means all."""

    models: list[str] | None = None
    """Names from `models`."""
    train_sets: list[str] | None = None
    """Names from `data`."""
    methods: list[str] | None = None
    """Names from `methods`."""

    def passes(self, model: str, train_set: str, method: str) -> bool:
        """Whether a run of these is shown."""
        return (
            (self.models is None or model in self.models)
            and (self.train_sets is None or train_set in self.train_sets)
            and (self.methods is None or method in self.methods)
        )
