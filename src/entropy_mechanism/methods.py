"""What a method is made of: advantage estimator, objective, token selection, regularisation, presets."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, create_model, model_serializer, model_validator

from entropy_mechanism import own_code
from entropy_mechanism.config_errors import FILLED_IN, KeyedError
from entropy_mechanism.own_code import Code
from entropy_mechanism.settings import Fraction, Positive, Strict, Training

NotNegative = Annotated[float, Field(ge=0)]


def _absent(value: Any) -> bool:
    """Whether a key that most methods lack stays out of run.yaml, and so out of their fingerprints."""
    return value is None


class RewardModel(Strict):
    """PRIME's implicit process reward model, trained online from a copy of the base model."""

    learning_rate: Positive = 1e-6
    """Constant rate of its AdamW."""
    beta: Positive = 0.05
    """Scale of the log-ratio to the base model that is the reward of a token."""


class Advantage(Strict):
    """How rewards become advantages."""

    estimator: Literal["grpo", "rloo", "reinforce++", "reinforce++-baseline", "prime", "own"] = "grpo"
    """grpo: (r - group mean) / (group std + epsilon), Eq. 3. rloo: r - mean of the group's other responses.
    reinforce++: r, normalised over all tokens of the batch; -baseline subtracts the group mean first.
    prime: rloo, plus the returns of an implicit process reward model's rewards (arXiv 2502.01456).
    own: a function of your own, `code`."""
    reward_model: RewardModel = RewardModel()
    """The reward model of `prime`; of no effect on the others."""
    std: Literal["sample", "population", "none"] = "sample"
    """Divisor of a variance: n - 1 (the paper's code) or n; `none` leaves the division out (Dr. GRPO)."""
    epsilon: Positive = 1e-6
    """Added to the standard deviation."""
    code: Code | None = Field(None, exclude_if=_absent)
    """For `own`: `file.py:function`, a function of (rewards_PG, sequence_N, **options); docs/extending.md."""
    options: dict[str, Any] | None = Field(None, exclude_if=_absent)
    """For `own`: what else the function takes, by name."""
    sha256: str | None = Field(None, exclude_if=_absent, json_schema_extra=FILLED_IN)
    """For `own`: of the file; filled in when the experiment is read."""

    @model_validator(mode="before")
    @classmethod
    def _own(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        if raw.get("estimator") == "own":
            if raw.get("code") is None:
                raise KeyedError("code", "required key is missing; estimator own is a function of your own")
            return raw | own_code.described(raw, ("rewards_PG", "sequence_N"))
        for key in ("code", "options", "sha256"):
            if raw.get(key) is not None:
                raise KeyedError(key, f"found with estimator {raw.get('estimator', 'grpo')}; allowed: with own")
        return raw


class Clipping(Strict):
    """Bounds of the importance ratio rho: it is clipped to [1 - clip_low, 1 + clip_high], Eq. 4."""

    clip_low: Fraction | None = 0.2
    """How far below 1 the ratio may go; null: no bound."""
    clip_high: NotNegative | None = 0.2
    """How far above 1 the ratio may go; 0.28 is Clip-higher; null: no bound."""
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """Bound c of the loss of tokens with negative advantage: at most -c A; verl uses 3, the paper's code none."""
    log_ratio_clamp: Positive | None = None
    """Largest |log rho| before the exponential; verl uses 20 for ppo-clip, the paper's code none."""

    @model_validator(mode="after")
    def _order(self) -> "Clipping":
        if self.clip_low is not None and self.clip_high is not None and self.clip_low > self.clip_high:
            raise KeyedError(
                "clip_low",
                f"clip bounds reversed: clip_low ({self.clip_low}) must not exceed clip_high ({self.clip_high})",
            )
        return self


class Selection(Strict):
    """Which tokens count when the highest covariances are looked for."""

    fraction: NotNegative
    """Share of tokens to select, in `unit`."""
    unit: Literal["fraction", "percent"] = "fraction"
    """Unit of `fraction`; the paper's code gives KL-Cov's share in percent."""
    scope: Literal["minibatch", "microbatch", "rollout"] = "minibatch"
    """Tokens that are centred and ranked together: those of one update (the paper's text), of one micro-batch
    (the paper's code), or of the whole rollout."""
    policy: Literal["current", "old"] = "current"
    """Whose log-probabilities enter the covariance: the policy being updated (Eq. 10) or the sampling one.
    Scope `rollout` chooses once per rollout, before its first update, when both are the same."""
    form: Literal["advantage", "weighted"] = "advantage"
    """Second argument of the covariance: A (Theorem 2, Eq. 10) or pi A (Theorem 1)."""
    min_tokens: Annotated[int, Field(ge=0)] = 0
    """Select at least this many tokens even if the fraction asks for fewer; the paper's code uses 1."""

    @property
    def share(self) -> float:
        """The share of tokens as a fraction of 1."""
        return self.fraction / 100 if self.unit == "percent" else self.fraction

    @property
    def needs_current(self) -> bool:
        """Whether choosing takes log pi of the policy being updated."""
        return self.policy == "current"

    @model_validator(mode="after")
    def _share(self) -> "Selection":
        if self.share > 1:
            raise KeyedError("fraction", f"found {self.fraction}; allowed: at most the whole, in unit {self.unit}")
        return self


class PolicyGradient(Strict):
    """Plain policy gradient -A log pi; strictly on-policy, so it wants one update per rollout."""

    name: Literal["policy-gradient"]


class PpoClip(Clipping):
    """PPO's clipped surrogate, Eq. 4."""

    name: Literal["ppo-clip"]


class Cispo(Clipping):
    """CISPO (arXiv 2506.13585): -sg(clipped rho) A log pi; a clipped token keeps its gradient, bounded."""

    name: Literal["cispo"]
    clip_low: Fraction | None = None
    """How far below 1 the weight may go; null: no bound."""


class Gspo(Clipping):
    """GSPO (arXiv 2507.18071): PPO's surrogate with the length-normalised ratio of the whole response."""

    name: Literal["gspo"]
    clip_low: Fraction | None = 3e-4
    """How far below 1 the response's ratio may go."""
    clip_high: NotNegative | None = 4e-4
    """How far above 1 the response's ratio may go."""


class ClipCov(Clipping, Selection):
    """Clip-Cov, Eq. 11-12: some tokens of high covariance give no gradient."""

    name: Literal["clip-cov"]
    fraction: NotNegative = 2e-4
    """Share r of tokens detached, in `unit`."""
    covariance_low: float = 1.0
    """Lower end of the band from which tokens are drawn."""
    covariance_high: float = 5.0
    """Upper end of the band."""
    band: Literal["closed", "open"] = "closed"
    """Whether the ends belong to the band: closed in the text, open in the paper's code."""
    draw: Literal["uniform", "top"] = "uniform"
    """Draw tokens of the band at random, or take those of highest covariance."""
    exclude_clipped: bool = True
    """Do not draw tokens whose ratio PPO already cuts, as the paper's code does."""
    count_selected: bool = True
    """Whether detached tokens count in the denominator of the mean."""
    clip_low: Fraction | None = 1.0
    """As in ppo-clip; the paper's runs use 1 for both, a mild guard against extreme ratios; Eq. 12 has none."""
    clip_high: NotNegative | None = 1.0
    """As in ppo-clip."""

    @property
    def needs_current(self) -> bool:
        """Whether choosing takes log pi of the policy being updated: PPO cuts by its ratio to the old one."""
        return super().needs_current or self.exclude_clipped

    @model_validator(mode="after")
    def _band(self) -> "ClipCov":
        if self.covariance_low >= self.covariance_high:
            raise KeyedError(
                "covariance_low",
                f"band reversed: covariance_low ({self.covariance_low}) must be below "
                f"covariance_high ({self.covariance_high})",
            )
        return self


class KlCov(Clipping, Selection):
    """KL-Cov, Eq. 13-14: tokens of the highest covariance are held to the sampling policy."""

    name: Literal["kl-cov"]
    fraction: NotNegative = 2e-3
    """Share k of tokens penalised, in `unit`."""
    coefficient: NotNegative = 1.0
    """Weight beta of the penalty."""
    penalty: Literal["abs", "k1", "k2", "k3", "full"] = "abs"
    """Estimate of KL(old || new) per token: |log rho| (Listing 1 and the paper's code), -log rho (k1),
    (log rho)^2 / 2 (k2), rho - 1 - log rho (k3); or the KL itself, over the whole vocabulary (full), which holds
    a copy of the weights and cannot have scope `microbatch`."""
    clip_low: Fraction | None = None
    """As in ppo-clip; Eq. 14 has no clip."""
    clip_high: NotNegative | None = None
    """As in ppo-clip; Eq. 14 has no clip."""

    @model_validator(mode="after")
    def _full(self) -> "KlCov":
        if self.penalty == "full" and self.scope == "microbatch":
            raise KeyedError("penalty", "found full; allowed in scope microbatch: abs, k1, k2, k3")
        return self


class OwnObjective(Strict):
    """A function of your own (docs/extending.md)."""

    name: Literal["own"]
    code: Code
    """`file.py:function`, a function of (tokens, **options) that gives the loss of every token."""
    options: dict[str, Any] = Field({})
    """What else the function takes, by name."""
    sha256: str = Field("", json_schema_extra=FILLED_IN)
    """Of the file; filled in when the experiment is read."""

    @property
    def takes_covariance(self) -> bool:
        """Whether the function has a parameter `covariance`; its file is parsed. KeyedError where that is gone.

        For what plans, which runs no code of others; `rl.objectives.takes_covariance` asks the function itself.
        """
        return own_code.COVARIANCE in own_code.signature(self.code).names

    @model_validator(mode="before")
    @classmethod
    def _own(cls, raw: Any) -> Any:
        return raw | own_code.described(raw, ("tokens",)) if isinstance(raw, dict) else raw


Objective = Annotated[
    PolicyGradient | PpoClip | Cispo | Gspo | ClipCov | KlCov | OwnObjective, Field(discriminator="name")
]


class Regularisation(Strict):
    """Terms added to any objective."""

    entropy: float = 0.0
    """alpha of L - alpha H (Fig 9), H the exact entropy of the token's distribution."""
    reference_kl: NotNegative = 0.0
    """beta of L + beta KL(pi || base model) (Fig 10)."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """Estimate of that KL per token; k3 as in the paper's code."""


Aggregation = Literal["token-mean", "micro-batch-mean", "sequence-mean", "constant"]


class _Override(Strict):
    """Settings of which only those that are written count, `null` too."""

    @model_serializer(mode="wrap")
    def _written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if name in self.model_fields_set}


TrainingOverride = create_model(  # type: ignore[call-overload]  # its fields are those of another class
    "TrainingOverride",
    __base__=_Override,
    __doc__="Training settings that a method or a group of runs changes.",
    **{name: (field.rebuild_annotation(), None) for name, field in Training.model_fields.items()},
)

_PAPER_CODE_COV = {"scope": "microbatch", "min_tokens": 1}
PRESETS: dict[str, dict[str, Any]] = {
    "paper-text": {
        "objective": {
            "clip-cov": {"clip_low": None, "clip_high": None, "exclude_clipped": False},
            "kl-cov": {"penalty": "k3"},
        },
    },
    "paper-code": {
        "aggregation": "micro-batch-mean",
        "objective": {
            "clip-cov": {**_PAPER_CODE_COV, "band": "open"},
            "kl-cov": {**_PAPER_CODE_COV, "unit": "percent", "fraction": 0.2},
        },
    },
    "verl": {
        "aggregation": "micro-batch-mean",
        "objective": {
            "ppo-clip": {"dual_clip": 3.0, "log_ratio_clamp": 20.0},
            "clip-cov": {**_PAPER_CODE_COV, "band": "open"},
            "kl-cov": {**_PAPER_CODE_COV, "fraction": 2e-4, "coefficient": 0.1},
        },
    },
}
"""What each preset sets where a method does not say otherwise: the aggregation, and each objective's options."""


class Method(Strict):
    """Advantage estimator and objective, and what of the training a method needs to be different."""

    extends: str | None = None
    """Another method, whose settings this one takes over and changes."""
    preset: Literal["paper-text", "paper-code", "verl"] | None = None
    """Take over the details of the paper's text, of its released code or of verl where nothing else is said."""
    advantage: Advantage = Advantage()
    """How rewards become advantages."""
    objective: Objective
    """What is minimised."""
    regularisation: Regularisation = Regularisation()
    """Terms added to the objective."""
    aggregation: Aggregation = "token-mean"
    """Mean over all tokens of an update; token means of micro-batches weighted by their responses (the paper's
    code); mean over the tokens of each response, then over responses; or sum over responses x max_response."""
    training: TrainingOverride | None = None
    """Training settings that differ from the experiment's; `null` switches off what that has."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, raw: Any) -> Any:
        for section in ("advantage", "objective") if isinstance(raw, dict) else ():
            own_code.refuse_digest(raw.get(section), f"{section}.")
        if not isinstance(raw, dict) or raw.get("preset") not in PRESETS:
            return raw
        preset = dict(PRESETS[raw["preset"]])
        options = preset.pop("objective")
        objective = raw.get("objective")
        if isinstance(objective, dict):
            raw = raw | {"objective": options.get(objective.get("name"), {}) | objective}
        return preset | raw
