"""How a step's updates change the entropy after the same prefixes, beside Lemma 1 of arXiv 2505.22617."""

import torch

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
    def measure(self, policy: Policy) -> dict[str, float]:
        """The change to `policy` as it is now, nats: tokens averaged per response, then responses, as in Eq. 5.

        `entropy_change/same_prefix` is the entropy after less that before, `entropy_change/predicted` minus the
        covariance of log-probability and change of the logits under the policy before (Lemma 1), each state's
        over the whole vocabulary. The prefixes are those of the policy before: Lemma 1 holds them fixed.
        """
        change_2N = torch.zeros(2, len(self.sequences.targets_N), dtype=torch.float64)
        head_VD = self.head_VD.to(policy.ranks.device)
        for rows, before_nD in self.parts:

            def change(model, part, before_nD=before_nD):
                after_nD = response_states(model, part)
                weight_VD = model.get_output_embeddings().weight
                before_nD = before_nD.to(after_nD.device)
                return head_entropy_change(before_nD, head_VD, after_nD, weight_VD, self.chunk)

            found_2n = policy.apply(change, self.sequences[rows])
            change_2N[:, self.sequences.token_index(rows)] = found_2n.double().cpu()
        policy.reshard()
        change_2N = policy.ranks.sum(change_2N)
        names = ("entropy_change/same_prefix", "entropy_change/predicted")
        where = (self.sequences.sequence_N, len(self.sequences))
        return {
            name: float(sequence_means(change_N, *where).nanmean())
            for name, change_N in zip(names, change_2N, strict=True)
        }
