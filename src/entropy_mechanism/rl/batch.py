"""What travels between the steps of the training loop.

Response tokens are kept flat: a value per token of all responses one after another, shape [N], with `sequence`
[N] saying which response a token belongs to. There is no padding to mask, and N is the number of tokens.
Shape suffixes: B responses, P prompts (groups), G responses per group, N response tokens, V vocabulary.
"""

import bisect
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
    questions: list[int]
    """Question of every response: its position among the training problems."""

    @property
    def group_size(self) -> int:
        """G."""
        return self.rewards_PG.shape[1]

    @property
    def sequences(self) -> "Sequences":
        """The responses with their prompts, as the policy reads them."""
        return Sequences(self.prompts, self.responses)

    @property
    def engine_logprob_N(self) -> torch.Tensor:
        """Log-probability of every response token as the rollout engine saw it, flat."""
        return torch.tensor([value for values in self.engine_logprobs for value in values])

    def groups(self, indices: Sequence[int]) -> "Rollout":
        """The rollout of the given groups, in the given order. No group is ever split."""
        size = self.group_size
        rows = [row for index in indices for row in range(index * size, (index + 1) * size)]
        return Rollout(
            prompts=[self.prompts[row] for row in rows],
            responses=[self.responses[row] for row in rows],
            engine_logprobs=[self.engine_logprobs[row] for row in rows],
            rewards_PG=self.rewards_PG[list(indices)],
            questions=[self.questions[row] for row in rows],
        )

    @staticmethod
    def concatenate(rollouts: Sequence["Rollout"]) -> "Rollout":
        """Several rollouts of equal group size as one."""
        return Rollout(
            prompts=[prompt for rollout in rollouts for prompt in rollout.prompts],
            responses=[response for rollout in rollouts for response in rollout.responses],
            engine_logprobs=[values for rollout in rollouts for values in rollout.engine_logprobs],
            rewards_PG=torch.cat([rollout.rewards_PG for rollout in rollouts]),
            questions=[question for rollout in rollouts for question in rollout.questions],
        )


@dataclass(frozen=True)
class Sequences:
    """B prompts with their responses, as the policy reads them."""

    prompts: list[list[int]]
    responses: list[list[int]]

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: "slice | Sequence[int]") -> "Sequences":
        """The sequences in a slice, or those of the given indices in their order."""
        indices = range(len(self))[rows] if isinstance(rows, slice) else rows
        return Sequences([self.prompts[row] for row in indices], [self.responses[row] for row in indices])

    @property
    def lengths(self) -> list[int]:
        """Tokens of prompt and response together, of every sequence."""
        return [len(p) + len(r) for p, r in zip(self.prompts, self.responses, strict=True)]

    @property
    def response_lengths_B(self) -> torch.Tensor:
        """Tokens of every response, int64."""
        return torch.tensor([len(response) for response in self.responses], dtype=torch.long)

    @property
    def sequence_N(self) -> torch.Tensor:
        """Index of the response that each response token belongs to, int64."""
        return torch.repeat_interleave(torch.arange(len(self)), self.response_lengths_B)

    @property
    def targets_N(self) -> torch.Tensor:
        """The response tokens, int64."""
        return torch.tensor([token for response in self.responses for token in response], dtype=torch.long)

    def token_index(self, rows: Sequence[int]) -> torch.Tensor:
        """Where the n response tokens of the given rows stand among all N, int64 [n]."""
        lengths_B = self.response_lengths_B
        chosen = torch.tensor(rows, dtype=torch.long)
        return spans((lengths_B.cumsum(0) - lengths_B)[chosen], lengths_B[chosen])

    def check(self, vocabulary: int) -> None:
        """Raise ValueError for a prompt without tokens or a token id outside 0 … `vocabulary` - 1."""
        for row, (prompt, response) in enumerate(zip(self.prompts, self.responses, strict=True)):
            if not prompt:
                raise ValueError(f"sequence {row} has a prompt without tokens; nothing predicts its first token")
            for part, tokens in (("prompt", prompt), ("response", response)):
                if tokens and not 0 <= min(tokens) <= max(tokens) < vocabulary:
                    place, token = next((i, t) for i, t in enumerate(tokens) if not 0 <= t < vocabulary)
                    raise ValueError(
                        f"sequence {row} has token id {token} at position {place} of its {part}; the model knows "
                        f"0 to {vocabulary - 1}. Do tokenizer and model belong together?"
                    )

    def micro_batches(self, tokens: int) -> Iterator[slice]:
        """Runs of consecutive rows whose padded size stays within `tokens`; a single longer row stands alone."""
        return _runs(self.lengths, tokens)

    def balanced_micro_batches(self, tokens: int) -> list[list[int]]:
        """Rows of micro-batches of similar lengths, longest first; ascending within a micro-batch.

        As few micro-batches as a padded size of `tokens` allows (a single longer row stands alone), and as even as
        their number allows. The values of micro-batch `rows` are `values_N[token_index(rows)]`.
        """
        lengths = self.lengths
        order = sorted(range(len(self)), key=lambda row: -lengths[row])
        ordered = [lengths[row] for row in order]
        fewest = sum(1 for _ in _runs(ordered, tokens))
        # More tokens never need more micro-batches, so the smallest size that keeps their number can be bisected.
        size = bisect.bisect_left(range(tokens), -fewest, key=lambda size: -sum(1 for _ in _runs(ordered, size)))
        return [sorted(order[run]) for run in _runs(ordered, size)]


def _runs(lengths: Sequence[int], tokens: int) -> Iterator[slice]:
    start, longest = 0, 0
    for row, length in enumerate(lengths):
        longest = max(longest, length)
        if row > start and longest * (row - start + 1) > tokens:
            yield slice(start, row)
            start, longest = row, length
    if start < len(lengths):
        yield slice(start, len(lengths))


def spans(starts_B: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    """start, start + 1, … of each of B spans, one after another; int64, as long as all of them together."""
    offsets_B = lengths_B.cumsum(0) - lengths_B
    return torch.arange(int(lengths_B.sum())) + (starts_B - offsets_B).repeat_interleave(lengths_B)


def sequence_means(values_N: torch.Tensor, sequence_N: torch.Tensor, sequences: int) -> torch.Tensor:
    """Mean over the tokens of each response, shape [B]; a response without tokens gives NaN."""
    sums = torch.zeros(sequences, dtype=values_N.dtype).index_add_(0, sequence_N, values_N)
    counts = torch.bincount(sequence_N, minlength=sequences)
    return sums / counts
