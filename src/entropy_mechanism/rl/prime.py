"""PRIME (arXiv 2502.01456): an implicit process reward model, trained online beside the policy.

Its reward of a token is beta times the log-ratio of a trained copy of the base model to the base model itself, so
labels of whole responses are enough to train it.
"""

import copy
import math
from typing import Any

import torch
from transformers import PreTrainedModel

from entropy_mechanism.config import RewardModel, Training
from entropy_mechanism.rl.batch import Sequences, sequence_means
from entropy_mechanism.rl.policy import Policy
from entropy_mechanism.rl.ranks import Ranks


class ImplicitRewardModel:
    """The reward model, its frozen reference and its optimiser."""

    def __init__(
        self,
        base: PreTrainedModel,
        settings: RewardModel,
        training: Training,
        ranks: Ranks | None = None,
        sharded: bool = False,
    ) -> None:
        """Start from copies of the base model, spread over `ranks` as the policy is."""
        self.settings, self.training = settings, training
        frozen = copy.deepcopy(base).eval().requires_grad_(False)
        self.model = Policy(copy.deepcopy(base).eval(), training.dtype, ranks, sharded)
        self.reference = Policy(frozen, training.dtype, ranks, sharded)
        weights = self.model.model.parameters()
        self.optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0, fused=True)

    def rewards(self, sequences: Sequences) -> torch.Tensor:
        """beta (log pi_phi - log pi_ref) of every response token; [N], no gradient."""
        return self.settings.beta * (
            self._logprob(self.model, sequences) - self._logprob(self.reference, sequences)
        )

    def update(self, sequences: Sequences, right_B: torch.Tensor) -> dict[str, float]:
        """One optimiser step on the cross-entropy of sigmoid(sum of a response's rewards) with its outcome.

        `right_B` is 1 for a right response and 0 for a wrong one; the loss is the mean over responses.
        """
        training, count, ranks = self.training, len(sequences), self.model.ranks
        reference_N = self._logprob(self.reference, sequences)
        self.optimizer.zero_grad(set_to_none=True)
        sums = {"loss": 0.0, "agreeing": 0.0}
        mine = ranks.share(sequences.balanced_micro_batches(training.micro_batch_tokens), [])
        for turn, rows in enumerate(mine):
            part, right = sequences[rows], right_B[rows].float()
            logprob_N = self.model.read(part, chunk=training.logprob_chunk, last=turn + 1 == len(mine)).logprob_N
            base_N = reference_N[sequences.token_index(rows)].to(logprob_N.device)
            rewards_N = self.settings.beta * (logprob_N - base_N)
            sequence_N = part.sequence_N.to(rewards_N.device)
            logit_B = torch.zeros(len(part), device=rewards_N.device).index_add(0, sequence_N, rewards_N)
            right = right.to(logit_B.device)
            part_loss = (
                torch.nn.functional.binary_cross_entropy_with_logits(logit_B, right, reduction="sum") / count
            )
            self.model.backward(part_loss)
            sums["loss"] += part_loss.item()
            sums["agreeing"] += int(((logit_B > 0) == (right > 0.5)).sum())
        sums = ranks.sums(sums)
        norm = self.model.clip_gradient(training.gradient_clip)
        sound = bool(norm.isfinite()) and math.isfinite(sums["loss"])
        if sound:
            self.optimizer.step()
        return {
            "reward_model/loss": sums["loss"],
            "reward_model/accuracy": sums["agreeing"] / count,
            "reward_model/gradient_norm": norm.item(),
            "reward_model/skipped_updates": float(not sound),
        }

    def state(self) -> dict[str, Any]:
        """What resuming needs; the reference is the base model and needs no saving."""
        return self.model.state(self.optimizer)

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.model.load_state(state, self.optimizer)

    def _logprob(self, model: Policy, sequences: Sequences) -> torch.Tensor:
        chunk, tokens = self.training.logprob_chunk, self.training.micro_batch_tokens
        return model.measure(sequences, 1.0, chunk, tokens).logprob_N


def prime_advantages(process_N: torch.Tensor, rewards_PG: torch.Tensor, sequences: Sequences) -> torch.Tensor:
    """Eq. 5 of arXiv 2502.01456, discount 1: leave-one-out outcome plus return of centred process rewards; [N].

    A_t = r_o - mean of the other responses' r_o + sum over s >= t of (r_s - b), where b is the mean, over the
    other responses of the prompt, of their mean process reward per token.
    """
    group = rewards_PG.shape[1]
    sequence_N = sequences.sequence_N
    mean_PG = sequence_means(process_N, sequence_N, len(sequences)).nan_to_num().view_as(rewards_PG)
    baseline_PG = (mean_PG.sum(1, keepdim=True) - mean_PG) / (group - 1)
    outcome_PG = rewards_PG - (rewards_PG.sum(1, keepdim=True) - rewards_PG) / (group - 1)
    centred_N = process_N - baseline_PG.flatten()[sequence_N]
    returns = [part.flip(0).cumsum(0).flip(0) for part in centred_N.split(sequences.response_lengths_B.tolist())]
    return outcome_PG.flatten()[sequence_N] + torch.cat(returns)
