"""Rollouts of a step: filter and refill, the order of the questions, groups that stay whole."""

import pytest
import torch
from training_cases import QUESTIONS, config_for

from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rl.batch import Rollout
from entropy_mechanism.rl.collect import Collector, DataOrder
from entropy_mechanism.rl.loop import Trainer
from entropy_mechanism.rollouts.engine import Completion, Sampling


def collector_for(engine, grader, **training):
    config = config_for(**training).training
    order = DataOrder(len(QUESTIONS), 3)
    timer = Trainer.timed.__get__(type("T", (), {"seconds": __import__("collections").defaultdict(float)})())
    return Collector(QUESTIONS, order, engine, grader, Sampling(1.0, 6, (1,)), config, 3, timer)


class Scripted:
    """An engine whose first token says which prompt and sample it answers."""

    def generate(self, prompts, sampling, seeds):
        return [
            [Completion([prompt[0], index], [0.0, 0.0], "stop") for index in range(len(row))]
            for prompt, row in zip(prompts, seeds, strict=True)
        ]


def grade_mixed_when(mixed):
    """Groups are mixed for questions in `mixed`, otherwise all wrong."""

    def grader(completions, questions):
        return [
            Outcome.CORRECT if int(question.answer) in mixed and c.token_ids[1] == 0 else Outcome.WRONG
            for c, question in zip(completions, questions, strict=True)
        ]

    return grader


def test_groups_without_signal_are_replaced_and_the_surplus_is_dropped():
    order = [DataOrder(20, 3)[i] for i in range(12)]
    mixed = set(order[:2]) | set(order[5:8]) | set(order[8:10])
    collected = collector_for(Scripted(), grade_mixed_when(mixed)).collect(step=0, cursor=0)
    assert collected.cursor == 8  # the second batch filled the step
    assert collected.metrics["rollout/batches"] == 2
    assert collected.metrics["rollout/all_wrong_share"] == pytest.approx(3 / 8)
    expected = [order[0], order[1], order[5], order[6]]
    assert collected.kept.prompts[::4] == [QUESTIONS[i].prompt_ids for i in expected]
    assert collected.kept_in_first == [0, 1]
    assert len(collected.first.prompts) == 16


def test_refilling_stops_after_the_allowed_batches():
    order = [DataOrder(20, 3)[i] for i in range(12)]
    collected = collector_for(Scripted(), grade_mixed_when({order[11]})).collect(step=0, cursor=0)
    assert collected.metrics["rollout/batches"] == 3
    assert collected.metrics["rollout/kept_groups"] == 1
    assert collected.cursor == 12


def test_data_order_shows_every_question_once_an_epoch_and_differs_between_epochs():
    order = DataOrder(20, seed=1)
    epochs = [[order[cursor] for cursor in range(20 * e, 20 * e + 20)] for e in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [DataOrder(20, 1)[c] for c in (45, 3, 45)] == [order[45], order[3], order[45]]


def test_groups_are_never_split():
    rollout = Rollout(
        prompts=[[i] for i in range(6)],
        responses=[[10 + i] for i in range(6)],
        engine_logprobs=[[0.0]] * 6,
        rewards_PG=torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]),
        questions=[7, 7, 8, 8, 9, 9],
    )
    chosen = rollout.groups([2, 0])
    assert chosen.prompts == [[4], [5], [0], [1]]
    assert chosen.questions == [9, 9, 7, 7]
    assert chosen.rewards_PG.tolist() == [[4, 5], [0, 1]]
    both = Rollout.concatenate([chosen, rollout.groups([1])])
    assert both.rewards_PG.tolist() == [[4, 5], [0, 1], [2, 3]]
    assert both.responses == [[14], [15], [10], [11], [12], [13]]
