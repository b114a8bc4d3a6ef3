"""The optimiser updates of one rollout step."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from entropy_mechanism.config import ClipCov, KlCov, RunConfig, Selection
from entropy_mechanism.rl import objectives, selection
from entropy_mechanism.rl.batch import Sequences
from entropy_mechanism.rl.covariance import token_covariance
from entropy_mechanism.rl.logprobs import measure, token_statistics
from entropy_mechanism.rl.objectives import Tokens
from entropy_mechanism.rollouts.engine import sample_seed


@dataclass(frozen=True)
class MiniBatch:
    """The responses of one update and their tokens' fixed quantities, flat [N]."""

    sequences: Sequences
    old_logprob_N: torch.Tensor
    advantage_N: torch.Tensor

    def rows(self, rows: slice) -> "MiniBatch":
        """The part that holds the given responses."""
        ends = self.sequences.response_lengths_B.cumsum(0)
        first = int(ends[rows.start - 1]) if rows.start else 0
        tokens = slice(first, int(ends[rows.stop - 1]))
        return MiniBatch(self.sequences[rows], self.old_logprob_N[tokens], self.advantage_N[tokens])


def update(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    batch: MiniBatch,
    config: RunConfig,
    seed: tuple[int, ...],
    preselected_N: torch.Tensor | None = None,
) -> dict[str, float]:
    """One optimiser update on the mean loss over all N response tokens of `batch`.

    A gradient that is not finite leaves the weights alone and is counted in `policy/skipped_updates`.

    The gradient is accumulated over micro-batches of `training.micro_batch_tokens` and is the same, up to
    rounding, for any such size: the denominator is N, and in selection scope `minibatch` the tokens are chosen
    once for the whole batch. `seed` determines Clip-Cov's draw. `preselected_N` is the choice of scope `rollout`.
    """
    training, settings = config.training, config.objective
    parts = list(batch.sequences.micro_batches(training.micro_batch_tokens))
    generator = torch.Generator().manual_seed(sample_seed("selection", *seed))
    chosen_N = preselected_N
    if chosen_N is None and isinstance(settings, Selection) and settings.scope == "minibatch" and len(parts) > 1:
        chosen_N = _select_ahead(model, batch, config, generator)
    optimizer.zero_grad(set_to_none=True)
    seen: dict[str, list] = defaultdict(list)
    loss, start = 0.0, 0
    for rows in parts:
        part = batch.rows(rows)
        stop = start + len(part.old_logprob_N)
        logprob = token_statistics(model, part.sequences, training.temperature, training.logprob_chunk).logprob_N
        old, advantage = part.old_logprob_N.to(logprob.device), part.advantage_N.to(logprob.device)
        if chosen_N is not None:
            selected = chosen_N[start:stop].to(logprob.device)
        else:
            selected = select(logprob, old, advantage, settings, generator)
        tokens = Tokens(logprob, old, advantage, selected)
        part_loss = objectives.OBJECTIVES[settings.name](tokens, settings).sum() / len(batch.old_logprob_N)
        part_loss.backward()
        loss += part_loss.item()
        start = stop
        for field in ("logprob", "old_logprob", "advantage", "selected"):
            seen[field].append(getattr(tokens, field).detach().cpu())
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), training.gradient_clip)
    if norm.isfinite():
        optimizer.step()
    tokens = Tokens(**{field: torch.cat(values) for field, values in seen.items()})
    metrics = {
        "policy/loss": loss,
        "policy/gradient_norm": norm.item(),
        "policy/skipped_updates": float(not norm.isfinite()),
    }
    metrics |= objectives.policy_metrics(tokens, settings)
    if isinstance(settings, Selection):
        metrics |= selection.selection_metrics(tokens.selected, tokens.logprob, tokens.advantage)
    return metrics


def select(
    logprob_N: torch.Tensor,
    old_logprob_N: torch.Tensor,
    advantage_N: torch.Tensor,
    settings: object,
    generator: torch.Generator,
) -> torch.Tensor:
    """The tokens that the objective treats specially among the N given; none for objectives without selection."""
    nothing = torch.zeros_like(advantage_N, dtype=torch.bool)
    if not isinstance(settings, Selection) or not len(advantage_N):
        return nothing
    reference = logprob_N if settings.policy == "current" else old_logprob_N
    covariance = token_covariance(reference, advantage_N)
    if isinstance(settings, KlCov):
        return selection.kl_cov(covariance, settings)
    assert isinstance(settings, ClipCov)
    tokens = Tokens(logprob_N.detach(), old_logprob_N, advantage_N, nothing)
    below, above = objectives.clipped(tokens, settings)
    return selection.clip_cov(covariance, below | above, settings, generator)


def _select_ahead(
    model: PreTrainedModel, batch: MiniBatch, config: RunConfig, generator: torch.Generator
) -> torch.Tensor:
    """Selection over a batch that is read in several micro-batches: one extra pass without gradient.

    With `policy: old` that pass serves Clip-Cov alone, which leaves out tokens that PPO clips.
    """
    training, settings = config.training, config.objective
    current = batch.old_logprob_N
    if settings.policy == "current" or isinstance(settings, ClipCov):
        current = measure(
            model, batch.sequences, training.temperature, training.logprob_chunk, training.micro_batch_tokens
        ).logprob_N
    return select(current, batch.old_logprob_N, batch.advantage_N, settings, generator)


def mean_metrics(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each metric over the updates of a step, NaN left out; what is counted is summed."""
    means = {name: _nanmean([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    for name in means.keys() & {"selection/count", "policy/skipped_updates"}:
        means[name] = sum(row[name] for row in rows)
    return means


def _nanmean(values: list[float]) -> float:
    return torch.tensor(values, dtype=torch.float64).nanmean().item()
