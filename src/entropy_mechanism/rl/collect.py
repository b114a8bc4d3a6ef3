"""Fills a rollout batch: sample, grade, drop groups without signal, refill."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from entropy_mechanism.config import Training
from entropy_mechanism.rewards.outcome import Outcome, reward
from entropy_mechanism.rl.batch import Rollout
from entropy_mechanism.rollouts.engine import Completion, Engine, Sampling, sample_seed


@dataclass(frozen=True)
class Question:
    """A problem as the policy gets it."""

    prompt_ids: list[int]
    answer: str
    tests: str = ""


@dataclass(frozen=True)
class Collected:
    """The outcome of filling one rollout batch."""

    kept: Rollout
    """The groups to train on, at most `training.prompts` of them; possibly none."""
    first: Rollout
    """Everything sampled in the first generation batch: what the policy does on unfiltered prompts."""
    kept_in_first: list[int]
    """Groups of `first` that open `kept`, in order: their statistics need computing only once."""
    cursor: int
    """Position in the data order after the last prompt drawn."""
    metrics: dict[str, float]

    @property
    def trained_N(self) -> torch.Tensor:
        """Which of the N response tokens of `first` are trained on: those that `kept` begins with, bool."""
        size = self.first.group_size
        rows = [row for group in self.kept_in_first for row in range(group * size, (group + 1) * size)]
        return torch.isin(self.first.sequences.sequence_N, torch.tensor(rows, dtype=torch.long))


class DataOrder:
    """An endless order of questions: one permutation per epoch, a function of (seed, epoch) alone."""

    def __init__(self, size: int, seed: int) -> None:
        """Order `size` questions."""
        self.size = size
        self.seed = seed
        self._epoch: tuple[int, list[int]] = (-1, [])

    def __getitem__(self, cursor: int) -> int:
        """The question drawn at position `cursor`."""
        epoch, index = divmod(cursor, self.size)
        if self._epoch[0] != epoch:
            generator = torch.Generator().manual_seed(sample_seed("order", self.seed, epoch))
            self._epoch = (epoch, torch.randperm(self.size, generator=generator).tolist())
        return self._epoch[1][index]


Grader = Callable[[Sequence[Completion], Sequence[Question]], list[Outcome]]
"""Grades each completion by the question beside it."""


@dataclass(frozen=True)
class Collector:
    """Draws prompts in order and turns them into graded rollouts."""

    questions: Sequence[Question]
    order: DataOrder
    engine: Engine
    grader: Grader
    sampling: Sampling
    training: Training
    seed: int
    timer: Callable

    def collect(self, step: int, cursor: int) -> Collected:
        """Sample batches of `training.prompts` prompts until enough groups pass the filter.

        The surplus of the last batch is dropped, as in the paper's code. At most `training.max_batches` batches
        are drawn; what passed until then is what the step trains on.
        """
        wanted = self.training.prompts
        outcomes: Counter[str] = Counter()
        batches: list[Rollout] = []
        kept: list[list[int]] = []
        while not batches or (sum(map(len, kept)) < wanted and len(batches) < self.training.max_batches):
            rollout, counts = self._sample(step, cursor)
            cursor += wanted
            outcomes += counts
            batches.append(rollout)
            room = wanted - sum(map(len, kept))
            kept.append(_with_signal(rollout.rewards_PG, self.training.filter_groups)[:room])
        rewards = torch.cat([batch.rewards_PG for batch in batches])
        lengths = torch.tensor([len(r) for batch in batches for r in batch.responses], dtype=torch.float64)
        responses = rewards.numel()
        metrics = {
            "reward/mean": float(rewards.mean()),
            **{f"outcome/{name}": outcomes[name] / responses for name in [*Outcome, "truncated"]},
            "length/mean": float(lengths.mean()),
            "length/max": float(lengths.max()),
            "rollout/batches": len(batches),
            "rollout/kept_groups": sum(map(len, kept)),
            "rollout/all_right_share": float((rewards.mean(1) == 1).double().mean()),
            "rollout/all_wrong_share": float((rewards.mean(1) == 0).double().mean()),
            "rollout/tokens": float(lengths.sum()),
        }
        chosen = [batch.groups(groups) for batch, groups in zip(batches, kept, strict=True)]
        return Collected(Rollout.concatenate(chosen), batches[0], kept[0], cursor, metrics)

    def _sample(self, step: int, cursor: int) -> tuple[Rollout, Counter[str]]:
        """One generation batch of `training.prompts` prompts from position `cursor` on."""
        draws = range(cursor, cursor + self.training.prompts)
        indices = [self.order[draw] for draw in draws]
        questions = [self.questions[index] for index in indices]
        samples = self.training.samples
        seeds = [[sample_seed(self.seed, step, draw, sample) for sample in range(samples)] for draw in draws]
        with self.timer("sample"):
            groups = self.engine.generate([q.prompt_ids for q in questions], self.sampling, seeds)
        completions = [completion for group in groups for completion in group]
        with self.timer("grade"):
            outcomes = self.grader(completions, [q for q in questions for _ in range(samples)])
        counts = Counter(outcome.value for outcome in outcomes)
        counts["truncated"] = sum(completion.finish_reason == "length" for completion in completions)
        rollout = Rollout(
            prompts=[question.prompt_ids for question in questions for _ in range(samples)],
            responses=[completion.token_ids for completion in completions],
            engine_logprobs=[completion.logprobs for completion in completions],
            rewards_PG=torch.tensor([reward(outcome) for outcome in outcomes]).view(-1, samples),
            questions=[index for index in indices for _ in range(samples)],
        )
        return rollout, counts


def _with_signal(rewards_PG: torch.Tensor, filter_groups: bool) -> list[int]:
    """Groups to keep: all, or those whose rewards are not all equal."""
    if not filter_groups:
        return list(range(len(rewards_PG)))
    return (rewards_PG != rewards_PG[:, :1]).any(dim=1).nonzero().squeeze(-1).tolist()
