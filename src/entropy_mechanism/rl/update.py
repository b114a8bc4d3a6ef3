"""The optimiser updates of one rollout step."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from entropy_mechanism.config import ClipCov, KlCov, RunConfig, Selection
from entropy_mechanism.rl import objectives, selection
from entropy_mechanism.rl.batch import Sequences
from entropy_mechanism.rl.covariance import token_covariance
from entropy_mechanism.rl.objectives import Tokens
from entropy_mechanism.rl.policy import Policy
from entropy_mechanism.rl.ranks import Ranks
from entropy_mechanism.rollouts.engine import sample_seed


@dataclass(frozen=True)
class MiniBatch:
    """The responses of one update and their tokens' fixed quantities, flat [N]."""

    sequences: Sequences
    old_logprob_N: torch.Tensor
    advantage_N: torch.Tensor
    reference_logprob_N: torch.Tensor | None = None
    """log pi of the base model, for the KL to it."""
    importance_N: torch.Tensor | None = None
    """Truncated importance weights of the policy that was trained over the one that sampled; see `importance`."""

    def rows(self, rows: slice | Sequence[int]) -> "MiniBatch":
        """The part that holds the responses of a slice, or those of the given indices in their order."""
        tokens = self.sequences.token_index(range(len(self.sequences))[rows] if isinstance(rows, slice) else rows)
        reference, importance = (
            None if values_N is None else values_N[tokens]
            for values_N in (self.reference_logprob_N, self.importance_N)
        )
        return MiniBatch(
            self.sequences[rows], self.old_logprob_N[tokens], self.advantage_N[tokens], reference, importance
        )


def importance(logprob_N: torch.Tensor, engine_logprob_N: torch.Tensor, cap: float) -> torch.Tensor:
    """min(pi_trainer / pi_engine, cap) of every token, [N], both before the rollout's updates.

    Truncated importance sampling: the loss is an expectation under the trainer's policy, and the engine drew from
    its own, which rounding has moved a little away.
    """
    return (logprob_N - engine_logprob_N).exp().clamp(max=cap)


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    batch: MiniBatch,
    config: RunConfig,
    seed: tuple[int, ...],
    preselected_N: torch.Tensor | None = None,
    first: bool = False,
    old_policy: Policy | None = None,
) -> tuple[dict[str, float], Tokens]:
    """One optimiser update on the weighted mean loss over the N response tokens of `batch`.

    A loss or gradient that is not finite leaves the weights alone and is counted in `policy/skipped_updates`.

    The gradient is accumulated over micro-batches of `training.micro_batch_tokens` and is the same, up to
    rounding, for any such size, unless aggregation or selection is by micro-batch: the weights of the mean are
    those of the whole batch, and in selection scope `minibatch` the tokens are chosen once for all of it. For the
    same reason it is the same for any number of ranks, which share out the micro-batches, always.
    `seed` determines Clip-Cov's draw. `preselected_N` is the choice of scope `rollout`. In the `first` update of
    a rollout both policies are the same, so log pi_old is log pi to the bit: measured in another layout it would
    differ by rounding, and the sign of that would turn KL-Cov's |log rho| into a pull at full strength.
    `old_policy` holds the weights that sampled, for KL-Cov's `penalty: full`.
    Returns the metrics and what the loss saw of the tokens, on the CPU.
    """
    settings, training, ranks = config.objective, config.training, policy.ranks
    parts = _micro_batches(batch.sequences, config)
    generator = torch.Generator().manual_seed(sample_seed("selection", *seed))
    chosen_N = preselected_N
    ahead = len(parts) > 1 or _wants_full_kl(settings)
    if chosen_N is None and isinstance(settings, Selection) and settings.scope == "minibatch" and ahead:
        chosen_N = _select_ahead(policy, batch, config, generator)
    covariance_N = None
    if len(parts) > 1 and objectives.takes_covariance(settings):
        covariance_N = token_covariance(_measure(policy, batch, config), batch.advantage_N)
    optimizer.zero_grad(set_to_none=True)
    seen = _Seen(batch)
    sums: dict[str, float] = defaultdict(float)
    mine = ranks.share(list(enumerate(parts)), (0, []))
    for turn, (index, rows) in enumerate(mine):
        if len(parts) > 1:  # scope `microbatch`: a draw of its own for each, whichever rank reads it
            generator = torch.Generator().manual_seed(sample_seed("selection", *seed, index))
        last = turn + 1 == len(mine)
        old_here = None if first else old_policy
        loss, tokens = _read_micro_batch(
            policy, batch, rows, config, chosen_N, covariance_N, generator, first, last, old_here
        )
        policy.backward(loss["policy/loss"])
        for name, value in loss.items():
            sums[name] += value.item()
        seen.add(batch.sequences.token_index(rows), tokens)
    totals = ranks.sums(sums)
    norm = policy.clip_gradient(training.gradient_clip)
    sound = bool(norm.isfinite()) and math.isfinite(totals["policy/loss"])
    if sound:
        optimizer.step()
    tokens = seen.tokens(ranks, batch, first)
    metrics = {
        **totals,
        "policy/gradient_norm": norm.item(),
        "policy/skipped_updates": float(not sound),
        **objectives.policy_metrics(tokens, settings),
    }
    if isinstance(settings, Selection):
        metrics |= selection.selection_metrics(tokens.selected, tokens.logprob, tokens.advantage)
    return metrics, tokens


class _Seen:
    """What the loss saw of an update's N tokens, collected from its micro-batches and from all ranks."""

    def __init__(self, batch: MiniBatch) -> None:
        self.logprob_N = torch.zeros_like(batch.advantage_N)
        self.selected_N = torch.zeros_like(batch.advantage_N)

    def add(self, places_n: torch.Tensor, tokens: Tokens) -> None:
        """Note a micro-batch, whose tokens stand at `places_n` in the batch."""
        self.logprob_N[places_n] = tokens.logprob.detach().to(self.logprob_N)
        self.selected_N[places_n] = tokens.selected.to(self.selected_N)

    def tokens(self, ranks: Ranks, batch: MiniBatch, first: bool) -> Tokens:
        """All of it, on the CPU, in the order of the batch; old and new policy are one in the `first` update."""
        logprob_N, selected_N = ranks.sum(torch.stack([self.logprob_N, self.selected_N]))
        old_N = logprob_N if first else batch.old_logprob_N
        return Tokens(logprob_N, old_N, batch.advantage_N, selected_N.bool(), batch.sequences.sequence_N)


def _read_micro_batch(
    policy: Policy,
    batch: MiniBatch,
    rows: Sequence[int],
    config: RunConfig,
    chosen_N: torch.Tensor | None,
    covariance_N: torch.Tensor | None,
    generator: torch.Generator,
    first: bool,
    last: bool,
    old_policy: Policy | None,
) -> tuple[dict[str, torch.Tensor], Tokens]:
    """Loss terms of some rows of the batch and what the loss saw.

    It selects tokens itself without `chosen_N`, and takes them for the whole update without `covariance_N`.
    """
    settings, training, part = config.objective, config.training, batch.rows(rows)
    reading = (part.sequences, training.temperature, training.logprob_chunk)
    penalised_n: torch.Tensor | None = None
    old_nV: torch.Tensor | None = None
    if old_policy is not None and _wants_full_kl(settings):
        assert chosen_N is not None, "penalty `full` needs its tokens chosen before they are read"
        penalised_n = chosen_N[batch.sequences.token_index(rows)].nonzero().squeeze(-1)
        with torch.no_grad():
            old_nV = old_policy.read(*reading, whole_n=penalised_n).logprobs_nV
    bonus = config.regularisation.entropy != 0
    statistics = policy.read(*reading, entropy_gradient=bonus, last=last, whole_n=penalised_n)
    logprob = statistics.logprob_N
    old = logprob.detach() if first else part.old_logprob_N.to(logprob.device)
    advantage = part.advantage_N.to(logprob.device)
    if chosen_N is None:
        selected = scope_N = select(logprob, old, advantage, settings, generator)
    else:
        selected, scope_N = chosen_N[batch.sequences.token_index(rows)].to(logprob.device), chosen_N
    full_kl = torch.zeros_like(advantage)
    if penalised_n is not None and old_nV is not None:
        assert statistics.logprobs_nV is not None  # `whole_n` asks for them
        kl_n = torch.nn.functional.kl_div(statistics.logprobs_nV, old_nV, reduction="none", log_target=True).sum(
            -1
        )
        full_kl = full_kl.index_put((penalised_n.to(full_kl.device),), kl_n)
    sequence = part.sequences.sequence_N.to(logprob.device)
    covariance = None
    if objectives.takes_covariance(settings):
        if covariance_N is None:
            covariance = token_covariance(logprob, advantage)
        else:
            covariance = covariance_N[batch.sequences.token_index(rows)].to(logprob.device)
    tokens = Tokens(logprob, old, advantage, selected, sequence, full_kl, covariance)
    weights = token_weights(part.sequences, batch.sequences, config.aggregation, training.max_response)
    weights = weights.to(logprob.device) * _denominator_factor(scope_N, settings)
    return _loss_terms(tokens, statistics.entropy_N, part, weights, config), tokens


def _wants_full_kl(settings: object) -> bool:
    return isinstance(settings, KlCov) and settings.penalty == "full"


def _micro_batches(sequences: Sequences, config: RunConfig) -> Sequence[Sequence[int]]:
    """Rows of each micro-batch: of similar lengths, but consecutive where their composition changes the result."""
    settings, tokens = config.objective, config.training.micro_batch_tokens
    selected_within = isinstance(settings, Selection) and settings.scope == "microbatch"
    if selected_within or config.aggregation == "micro-batch-mean":
        return [range(len(sequences))[rows] for rows in sequences.micro_batches(tokens)]
    return sequences.balanced_micro_batches(tokens)


def _loss_terms(
    tokens: Tokens,
    entropy_N: torch.Tensor,
    part: MiniBatch,
    weights_N: torch.Tensor,
    config: RunConfig,
) -> dict[str, torch.Tensor]:
    """A micro-batch's share of the update's loss (`policy/loss`, carries the gradient) and of its added terms."""
    settings, extra = config.objective, config.regularisation
    loss_N = objectives.OBJECTIVES[settings.name](tokens, settings)
    if part.importance_N is not None:
        loss_N = loss_N * part.importance_N.to(loss_N.device)
    loss = (weights_N * loss_N).sum()
    terms = {}
    if extra.entropy:
        terms["policy/entropy"] = (weights_N * entropy_N).sum()
        loss = loss - extra.entropy * terms["policy/entropy"]
    if part.reference_logprob_N is not None:
        reference = part.reference_logprob_N.to(tokens.logprob.device)
        estimate = objectives.reference_kl(tokens.logprob, reference, extra.kl_estimator)
        terms["policy/reference_kl"] = (weights_N * estimate).sum()
        loss = loss + extra.reference_kl * terms["policy/reference_kl"]
    return {"policy/loss": loss, **terms}


def _denominator_factor(selected_N: torch.Tensor, settings: object) -> float:
    """What the weights grow by where detached tokens do not count: N / (N - selected) of the selection's scope."""
    if not isinstance(settings, ClipCov) or settings.count_selected:
        return 1.0
    return len(selected_N) / max(1, len(selected_N) - int(selected_N.sum()))


def token_weights(
    part: Sequences, whole: Sequences, aggregation: str, max_response: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Weight of every token of a micro-batch in the mean over the update's N tokens of B responses; [n].

    token-mean: 1 / N. sequence-mean: 1 / (B |y|). constant: 1 / (B max_response) (Dr. GRPO). micro-batch-mean:
    the mean over the micro-batch's n tokens of b responses, times b / B (the paper's code). Raises ValueError for
    another aggregation.
    """
    responses, lengths = len(whole), part.response_lengths_B
    tokens = int(lengths.sum())
    match aggregation:
        case "token-mean":
            return torch.full((tokens,), 1 / max(1, int(whole.response_lengths_B.sum())), dtype=dtype)
        case "micro-batch-mean":
            return torch.full((tokens,), len(part) / responses / max(1, tokens), dtype=dtype)
        case "sequence-mean":
            return (1 / (responses * lengths.to(dtype)))[part.sequence_N]
        case "constant":
            return torch.full((tokens,), 1 / (responses * max_response), dtype=dtype)
    raise ValueError(f"unknown aggregation '{aggregation}'")


def select(
    logprob_N: torch.Tensor,
    old_logprob_N: torch.Tensor,
    advantage_N: torch.Tensor,
    settings: object,
    generator: torch.Generator,
) -> torch.Tensor:
    """The tokens that the objective treats specially among the N given, bool; none without selection."""
    nothing = torch.zeros_like(advantage_N, dtype=torch.bool)
    if not isinstance(settings, Selection) or not len(advantage_N):
        return nothing
    source = logprob_N if settings.policy == "current" else old_logprob_N
    covariance = token_covariance(source, advantage_N, weighted=settings.form == "weighted")
    if isinstance(settings, KlCov):
        return selection.kl_cov(covariance, settings)
    assert isinstance(settings, ClipCov)
    tokens = Tokens(logprob_N.detach(), old_logprob_N, advantage_N, nothing, torch.zeros_like(advantage_N).long())
    below, above = objectives.clipped(tokens, settings)
    return selection.clip_cov(covariance, below | above, settings, generator)


def _select_ahead(policy: Policy, batch: MiniBatch, config: RunConfig, generator: torch.Generator) -> torch.Tensor:
    """Selection over a batch that is read in several micro-batches: one extra pass without gradient.

    With `policy: old` that pass is needed by Clip-Cov's `exclude_clipped` alone.
    """
    settings, current = config.objective, batch.old_logprob_N
    assert isinstance(settings, Selection)
    if settings.needs_current:
        current = _measure(policy, batch, config)
    return select(current, batch.old_logprob_N, batch.advantage_N, settings, generator)


def _measure(policy: Policy, batch: MiniBatch, config: RunConfig) -> torch.Tensor:
    """log pi of the N tokens under the policy as it is; no gradient."""
    training = config.training
    return policy.measure(
        batch.sequences, training.temperature, training.logprob_chunk, training.micro_batch_tokens
    ).logprob_N


def mean_metrics(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each metric over the updates of a step, what is not finite left out; what is counted is summed."""
    means = {name: _finite_mean([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    for name in means.keys() & {"selection/count", "policy/skipped_updates"}:
        means[name] = sum(row[name] for row in rows)
    return means


def _finite_mean(values: list[float]) -> float:
    return torch.tensor([value for value in values if math.isfinite(value)], dtype=torch.float64).mean().item()
