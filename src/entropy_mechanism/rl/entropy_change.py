"""How a step's updates change the entropy after the same prefixes, beside Lemma 1 of arXiv 2505.22617."""

import torch
from transformers import PreTrainedModel

from entropy_mechanism.config import Training
from entropy_mechanism.rl.batch import Sequences, sequence_means
from entropy_mechanism.rl.head import head_entropy_change
from entropy_mechanism.rl.logprobs import response_states
from entropy_mechanism.rl.policy import Policy


class EntropyChange:
    """A policy as it was after every prefix of some responses: hidden states and output head give all its logits.

    They rest in main memory, the states of a micro-batch on the rank that reads it; neither all weights nor whole
    distributions are kept. It draws nothing and changes nothing, so the training goes on as without it.
    """

    @torch.no_grad()
    def __init__(self, policy: Policy, sequences: Sequences, training: Training) -> None:
        """Read `sequences` with `policy` as it is now; all ranks must do so together."""
        self.sequences, self.chunk = sequences, training.logprob_chunk
        batches = sequences.balanced_micro_batches(training.micro_batch_tokens)
        self.parts = [
            (rows, policy.apply(response_states, sequences[rows]).cpu())
            for rows in policy.ranks.share(batches, [])
        ]
        self.head_VD = policy.head()

    @torch.no_grad()
    def measure(
        self, policy: Policy, trained_N: torch.Tensor, logprob_n: torch.Tensor, advantage_n: torch.Tensor
    ) -> dict[str, float]:
        """The change to `policy` as it is now, nats: tokens averaged per response, then responses, as in Eq. 5.

        `entropy_change/same_prefix` is the entropy after less that before, `entropy_change/predicted` minus the
        covariance of log-probability and change of the logits under the policy before (Lemma 1), each state's
        over the whole vocabulary. The prefixes are those of the policy before: Lemma 1 holds them fixed.

        What Theorem 2 and Proposition 1 take for proportional: `entropy_change/logit_advantage` and
        `entropy_change/logit_weighted_advantage` are correlations over tokens between the change of the sampled
        token's logit, less its mean under the policy before, and A or pi A. Theorem 2's change has that mean 0;
        Proposition 1's has the plain mean 0 and would give somewhat less than 1. They are over the tokens of
        `trained_N` (bool), whose values `logprob_n` and `advantage_n` begin with; NaN where nothing varies.
        """
        change_3N = torch.zeros(3, len(self.sequences.targets_N), dtype=torch.float64)
        head_VD = self.head_VD.to(policy.ranks.device)
        for rows, before_nD in self.parts:

            def change(
                model: PreTrainedModel, part: Sequences, before_nD: torch.Tensor = before_nD
            ) -> torch.Tensor:
                after_nD = response_states(model, part)
                weight_VD = model.get_output_embeddings().weight
                before_nD = before_nD.to(after_nD.device)
                target_n = part.targets_N.to(after_nD.device)
                return head_entropy_change(before_nD, head_VD, after_nD, weight_VD, target_n, self.chunk)

            found_3n = policy.apply(change, self.sequences[rows])
            change_3N[:, self.sequences.token_index(rows)] = found_3n.double().cpu()
        policy.reshard()
        *change_2N, logit_N = policy.ranks.sum(change_3N)
        names = ("entropy_change/same_prefix", "entropy_change/predicted")
        where = (self.sequences.sequence_N, len(self.sequences))
        means = (float(sequence_means(change_N, *where).nanmean()) for change_N in change_2N)
        moved_n = logit_N[trained_N]
        probability_n, advantage_n = logprob_n[: len(moved_n)].double().exp(), advantage_n[: len(moved_n)].double()
        return dict(zip(names, means, strict=True)) | {
            "entropy_change/logit_advantage": _correlation(moved_n, advantage_n),
            "entropy_change/logit_weighted_advantage": _correlation(moved_n, probability_n * advantage_n),
        }


def _correlation(x_n: torch.Tensor, y_n: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([x_n, y_n]))[0, 1]) if len(x_n) > 2 else float("nan")
