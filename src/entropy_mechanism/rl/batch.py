"""What travels between the steps of the training loop.

Response tokens are kept flat: a value per token of all responses one after another, shape [N], with `sequence`
[N] saying which response a token belongs to. There is no padding to mask, and N is the number of tokens.
Shape suffixes: B responses, P prompts (groups), G responses per group, N response tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rollout:
    """B graded responses; the G responses of a prompt stand one after another."""

    prompts: list[list[int]]
    """Prompt token ids of every response (equal within a group)."""
    responses: list[list[int]]
    """Response token ids, the stop token included where one was reached."""
    engine_logprobs: list[list[float]]
    """Log-probability of every response token as the rollout engine saw it."""
    rewards_PG: torch.Tensor
    """Rewards, float32."""

    @property
    def group_size(self) -> int:
        """G."""
        return self.rewards_PG.shape[1]

    def groups(self, indices: Sequence[int]) -> "Rollout":
        """The rollout of the given groups, in the given order. No group is ever split."""
        size = self.group_size
        rows = [row for index in indices for row in range(index * size, (index + 1) * size)]
        return Rollout(
            prompts=[self.prompts[row] for row in rows],
            responses=[self.responses[row] for row in rows],
            engine_logprobs=[self.engine_logprobs[row] for row in rows],
            rewards_PG=self.rewards_PG[list(indices)],
        )

    @staticmethod
    def concatenate(rollouts: Sequence["Rollout"]) -> "Rollout":
        """Several rollouts of equal group size as one."""
        return Rollout(
            prompts=[prompt for rollout in rollouts for prompt in rollout.prompts],
            responses=[response for rollout in rollouts for response in rollout.responses],
            engine_logprobs=[values for rollout in rollouts for values in rollout.engine_logprobs],
            rewards_PG=torch.cat([rollout.rewards_PG for rollout in rollouts]),
        )


@dataclass(frozen=True)
class Sequences:
    """B prompts with their responses, as the policy reads them."""

    prompts: list[list[int]]
    responses: list[list[int]]

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: slice) -> "Sequences":
        return Sequences(self.prompts[rows], self.responses[rows])

    @property
    def response_lengths_B(self) -> torch.Tensor:
        """Tokens of every response, int64."""
        return torch.tensor([len(response) for response in self.responses])

    @property
    def sequence_N(self) -> torch.Tensor:
        """Index of the response that each response token belongs to, int64."""
        return torch.repeat_interleave(torch.arange(len(self)), self.response_lengths_B)

    def micro_batches(self, tokens: int) -> Iterator[slice]:
        """Runs of rows whose padded size stays within `tokens`; a single longer row stands alone."""
        lengths = [len(p) + len(r) for p, r in zip(self.prompts, self.responses, strict=True)]
        start, longest = 0, 0
        for row, length in enumerate(lengths):
            longest = max(longest, length)
            if row > start and longest * (row - start + 1) > tokens:
                yield slice(start, row)
                start, longest = row, length
        if start < len(lengths):
            yield slice(start, len(lengths))


def sequence_means(values_N: torch.Tensor, sequence_N: torch.Tensor, sequences: int) -> torch.Tensor:
    """Mean over the tokens of each response, shape [B]; a response without tokens gives NaN."""
    sums = torch.zeros(sequences, dtype=values_N.dtype).index_add_(0, sequence_N, values_N)
    counts = torch.bincount(sequence_N, minlength=sequences)
    return sums / counts
