"""The training loop: sample, grade, filter and refill, measure, update, validate, checkpoint.

Row `step` of the metrics describes policy version `step`: its validation accuracy, entropy and covariance, and
the update that turns it into version `step + 1`. The last version is measured but not updated.
"""

import contextlib
import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from entropy_mechanism.config import KlCov, RunConfig, Selection
from entropy_mechanism.rl import checkpoint
from entropy_mechanism.rl.advantages import ESTIMATORS
from entropy_mechanism.rl.batch import Rollout
from entropy_mechanism.rl.collect import Collected, Collector, DataOrder, Grader, Question
from entropy_mechanism.rl.entropy_change import EntropyChange
from entropy_mechanism.rl.logprobs import TokenStatistics
from entropy_mechanism.rl.measurements import (
    check_finite,
    check_parity,
    describe,
    entropy_metrics,
    skipped_updates,
)
from entropy_mechanism.rl.policy import Policy
from entropy_mechanism.rl.prime import ImplicitRewardModel, prime_advantages
from entropy_mechanism.rl.ranks import Ranks, SharedEngine
from entropy_mechanism.rl.token_records import token_frame, write_shard
from entropy_mechanism.rl.update import MiniBatch, importance, mean_metrics, select, update
from entropy_mechanism.rollouts.engine import Engine, Sampling, sample_seed


class Stopped(Exception):
    """Training was asked to stop; everything up to the last finished step is in a checkpoint."""


@dataclass
class State:
    """What a run needs beside weights and optimiser to go on."""

    step: int = 0
    cursor: int = 0
    gradient_steps: int = 0
    skipped_updates: int = 0
    best_step: int = -1
    best_accuracy: float = -1.0


@dataclass(frozen=True)
class Hooks:
    """How the loop talks to the outside."""

    row: Callable[[dict[str, float | None]], None]
    """Takes the finished row of a step."""
    stop: Callable[[], bool]
    """Asked before the first step and after every step."""
    warn: Callable[[str], None]
    """Takes a message for a person."""


class Trainer:
    """A policy, its optimiser and its place in the run."""

    def __init__(
        self,
        config: RunConfig,
        model: PreTrainedModel,
        engine: Engine,
        grader: Grader,
        questions: Sequence[Question],
        validation: Sequence[Question],
        stop_ids: tuple[int, ...],
        checkpoints: Path,
        hooks: Hooks,
        fingerprint: str = "",
        ranks: Ranks | None = None,
    ) -> None:
        """Set up a run; `resume` takes over the newest sound checkpoint in `checkpoints` if there is one.

        Checkpoints carry the run's `fingerprint`, and those of another one are refused. Every one of the `ranks`
        sets up the same run; only the main one's `hooks` get rows and warnings. With sharded weights `engine` must
        have a model of its own.
        """
        training, ranks = config.training, ranks or Ranks()
        spread = (training.dtype, ranks, config.compute.sharding == "full")
        self.config, self.ranks = config, ranks
        self.engine = SharedEngine(engine, ranks, config.compute.tensor_parallel)
        self.grader: Grader = lambda *columns: ranks.spread(grader, *columns)
        self.validation, self.checkpoints, self.hooks = validation, checkpoints, hooks
        self.best = checkpoints.parent / "best"
        self.reference: Policy | None = None
        self.reward_model: ImplicitRewardModel | None = None
        self.old_policy: Policy | None = None
        if config.regularisation.reference_kl:
            self.reference = Policy(copy.deepcopy(model).requires_grad_(False), *spread)
        if config.advantage.estimator == "prime":
            self.reward_model = ImplicitRewardModel(model, config.advantage.reward_model, training, *spread[1:])
        if isinstance(config.objective, KlCov) and config.objective.penalty == "full":
            self.old_policy = Policy(copy.deepcopy(model).requires_grad_(False), *spread)
        self.policy = Policy(model, *spread)
        self.optimizer = torch.optim.AdamW(
            self.policy.model.parameters(),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=True,
        )
        self.fingerprint = fingerprint
        self.state = State()
        self.best_in_checkpoint = -1
        self.seconds: dict[str, float] = defaultdict(float)
        self.greedy = Sampling(0.0, training.max_response, stop_ids)
        self.collector = Collector(
            questions=questions,
            order=DataOrder(len(questions), config.seed),
            engine=self.engine,
            grader=self.grader,
            sampling=Sampling(training.temperature, training.max_response, stop_ids),
            training=training,
            seed=config.seed,
            timer=self.timed,
        )

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the seconds spent inside to `phase`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - start

    def resume(self, last_step: float = float("inf")) -> int:
        """Take over the newest sound checkpoint up to `last_step`, if any; returns the step to go on with."""
        saved: dict[str, Any] = {}
        if self.ranks.main:
            newest = checkpoint.newest_sound(self.checkpoints, self.hooks.warn, self.fingerprint, last_step)
            saved = checkpoint.load(newest) if newest else {}
        if state := self.ranks.gather(saved.get("state"))[0]:
            self.state = State(**state)
            self.policy.load_state(saved.get("policy", {}), self.optimizer)
            if self.reward_model is not None:
                self.reward_model.load_state(saved.get("reward_model", {}))
            self.engine.load_weights(self.policy.weights())
        self.best_in_checkpoint = self.state.best_step
        if self.ranks.main:  # later ones belong to steps that are done again, and would push new ones out
            checkpoint.newest_sound(self.best, lambda text: None, self.fingerprint, self.state.best_step)
        return self.state.step

    def train(self) -> None:
        """Run to the end. Raises `Stopped`, with all that was done in a checkpoint, when asked to stop."""
        last, saved = self.config.training.steps, self.state.step
        while True:
            stop = self.ranks.any(self.hooks.stop())
            if self.state.step > saved and (stop or self.state.step % self.config.training.checkpoint_every == 0):
                self.save()
                saved = self.state.step
            if stop:
                raise Stopped(f"stopped after step {self.state.step} of {last}")
            if self.state.step == last:
                break
            self.step()
            self.state.step += 1
        self.step(measure_only=True)

    def save(self) -> None:
        """Write a checkpoint of the current state."""
        with self.timed("checkpoint"):
            state = {"policy": self.policy.state(self.optimizer), "state": asdict(self.state)}
            if self.reward_model is not None:
                state["reward_model"] = self.reward_model.state()
            if self.ranks.main:
                checkpoint.save(self.checkpoints, self.state.step, state, self.fingerprint)
            self.ranks.any(False)  # no rank goes on, or ends, before the checkpoint is written
        self.best_in_checkpoint = self.state.best_step

    def keep_if_best(self, accuracy: float) -> None:
        """Put the weights aside, where the best policy is wanted and this is the best so far."""
        if self.config.training.final == "last" or accuracy <= self.state.best_accuracy:
            return
        self.state.best_step, self.state.best_accuracy = self.state.step, accuracy
        with self.timed("checkpoint"):
            weights = {name: tensor.cpu() for name, tensor in self.policy.weights() if self.ranks.main}
            if self.ranks.main:
                # the best that a checkpoint knows of stays, for a run that goes on from there
                place = (self.best, self.state.step, {"model": weights}, self.fingerprint)
                checkpoint.save(*place, needed=self.best_in_checkpoint)

    def result(self) -> tuple[int, dict[str, torch.Tensor]]:
        """Version and whole weights, on the main rank's CPU, of the policy that is the run's result.

        Raises OSError where the weights of the best policy are gone.
        """
        if self.config.training.final == "last":
            weights = {name: tensor.cpu() for name, tensor in self.policy.weights() if self.ranks.main}
            return self.state.step, weights
        if not self.ranks.main:
            return self.state.best_step, {}
        found = checkpoint.newest_sound(self.best, self.hooks.warn, self.fingerprint, self.state.best_step)
        if found is None or found.name != f"step-{self.state.best_step:06d}":
            raise OSError(
                f"the weights of the best policy, step {self.state.best_step}, are gone from {self.best}"
            )
        return self.state.best_step, checkpoint.load(found)["model"]

    def step(self, measure_only: bool = False) -> None:
        """Measure policy version `state.step` and, unless it is the last, update it."""
        training = self.config.training
        start = time.perf_counter()
        row: dict[str, float | None] = {"step": self.state.step, "gradient_steps": self.state.gradient_steps}
        row["validation/accuracy"] = None
        if self.state.step % training.validate_every == 0 or measure_only:
            with self.timed("validate"):
                row["validation/accuracy"] = accuracy = self.validate()
            self.keep_if_best(accuracy)
        collected = self.collector.collect(self.state.step, self.state.cursor)
        row |= collected.metrics
        self.engine.sleep()
        with self.timed("logprob"):
            first, kept = self.measure(collected)
        checked = (collected.kept, kept) if collected.kept.responses else (collected.first, first)
        row |= check_parity(*checked, training.dtype, self.state.step)
        row |= entropy_metrics("before_filter", first, collected.first.sequences)
        if len(collected.kept.rewards_PG):
            with self.timed("logprob"):
                advantage_N = self.advantages(collected.kept)
            row |= describe(collected.kept, kept, advantage_N)
            if not measure_only:
                change = self.entropy_change(collected.first)
                with self.timed("update"):
                    row |= self.update(collected.kept, kept, advantage_N)
                if change:
                    with self.timed("logprob"):
                        row |= change.measure(self.policy, collected.trained_N, kept.logprob_N, advantage_N)
                self.state.skipped_updates += skipped_updates(row)
                check_finite(self.state.skipped_updates, training.max_skipped_updates, self.state.step)
                self.engine.load_weights(self.policy.weights())
        self.state.cursor = collected.cursor
        for phase in ("sample", "grade", "logprob", "update", "validate", "checkpoint"):
            row[f"time/{phase}"] = self.seconds.pop(phase, 0.0)
        row["time/step"] = seconds = time.perf_counter() - start
        del row["rollout/tokens"]
        row["throughput/tokens_per_second"] = collected.metrics["rollout/tokens"] / seconds
        if self.ranks.main:
            self.hooks.row(row)

    def advantages(self, rollout: Rollout) -> torch.Tensor:
        """The advantage of every response token, [N]; PRIME's rewards are those before this step's update."""
        sequences = rollout.sequences
        if self.reward_model is not None:
            return prime_advantages(self.reward_model.rewards(sequences), rollout.rewards_PG, sequences)
        estimator = ESTIMATORS[self.config.advantage.estimator]
        return estimator(rollout.rewards_PG, sequences.sequence_N, self.config.advantage)

    def measure(self, collected: Collected) -> tuple[TokenStatistics, TokenStatistics]:
        """Statistics of the first generation batch and of the kept groups, each response read once."""
        first = self.statistics(collected.first)
        reused = len(collected.kept_in_first)
        later = collected.kept.groups(range(reused, len(collected.kept.rewards_PG)))
        chosen = collected.trained_N
        parts = [TokenStatistics(first.logprob_N[chosen], first.entropy_N[chosen])]
        if later.prompts:
            parts.append(self.statistics(later))
        return first, TokenStatistics(
            torch.cat([part.logprob_N for part in parts]), torch.cat([part.entropy_N for part in parts])
        )

    def statistics(self, rollout: Rollout, policy: Policy | None = None) -> TokenStatistics:
        """Log-probabilities and exact entropies under the current policy, or under `policy`; no gradient."""
        training = self.config.training
        return (policy or self.policy).measure(
            rollout.sequences, training.temperature, training.logprob_chunk, training.micro_batch_tokens
        )

    def entropy_change(self, rollout: Rollout) -> EntropyChange | None:
        """The policy before the updates of a step that measures how they change its entropy."""
        every = self.config.training.measure_entropy_change_every
        if not every or self.state.step % every:
            return None
        with self.timed("logprob"):
            return EntropyChange(self.policy, rollout.sequences, self.config.training)

    def update(self, rollout: Rollout, old: TokenStatistics, advantage_N: torch.Tensor) -> dict[str, float]:
        """The optimiser updates of this step; prompts are shared out evenly among them."""
        settings, step, training = self.config.objective, self.state.step, self.config.training
        reference_N = None if self.reference is None else self.statistics(rollout, self.reference).logprob_N
        cap, weight_N = training.importance_cap, None
        if cap is not None:
            weight_N = importance(old.logprob_N, rollout.engine_logprob_N, cap)
        batch = MiniBatch(rollout.sequences, old.logprob_N, advantage_N, reference_N, weight_N)
        chosen_N = None
        if isinstance(settings, Selection) and settings.scope == "rollout":
            generator = torch.Generator().manual_seed(sample_seed("selection", self.config.seed, step))
            chosen_N = select(old.logprob_N, old.logprob_N, advantage_N, settings, generator)
        if self.old_policy is not None:
            self.old_policy.copy_weights(self.policy)
        recorded = training.record_tokens_every and step % training.record_tokens_every == 0
        metrics, records, start, size = [], [], 0, rollout.group_size
        groups = torch.tensor_split(torch.arange(len(rollout.rewards_PG)), training.updates)
        for index, part in enumerate(part for part in groups if len(part)):
            mini = batch.rows(slice(int(part[0]) * size, (int(part[-1]) + 1) * size))
            here = slice(start, start + len(mini.old_logprob_N))
            chosen = None if chosen_N is None else chosen_N[here]
            seed = (self.config.seed, step, index)
            values, tokens = update(
                self.policy, self.optimizer, mini, self.config, seed, chosen, index == 0, self.old_policy
            )
            if isinstance(settings, Selection):
                values["selection/entropy"] = old.entropy_N[here][tokens.selected].double().mean().item()
            metrics.append(values)
            if recorded:
                responses, first = rollout.groups(part.tolist()), int(part[0])
                records.append(token_frame(step, index, first, responses, tokens, old.entropy_N[here], settings))
            self.state.gradient_steps += 1 - int(values["policy/skipped_updates"])
            start = here.stop
        if recorded and self.ranks.main:
            write_shard(self.checkpoints.parent / "tokens", step, records)
        row = mean_metrics(metrics)
        if self.reward_model is not None:
            row |= self.reward_model.update(batch.sequences, rollout.rewards_PG.flatten())
        return row

    def validate(self) -> float:
        """Share of the validation problems that the policy answers right, decoding greedily."""
        groups = self.engine.generate(
            [question.prompt_ids for question in self.validation], self.greedy, [[0]] * len(self.validation)
        )
        outcomes = self.grader([group[0] for group in groups], self.validation)
        return sum(outcome == "correct" for outcome in outcomes) / len(outcomes)
