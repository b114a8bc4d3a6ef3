"""The training loop on a random policy: invariances, filter and refill, reproducibility, resuming."""

import copy
import json
import math

import pytest
import torch

from entropy_mechanism.config import RunConfig
from entropy_mechanism.rewards.math import Outcome
from entropy_mechanism.rl.batch import Rollout, Sequences
from entropy_mechanism.rl.collect import Collector, DataOrder, Question
from entropy_mechanism.rl.logprobs import measure
from entropy_mechanism.rl.loop import Hooks, ParityError, Stopped, Trainer
from entropy_mechanism.rl.update import MiniBatch, update
from entropy_mechanism.rollouts.engine import Completion, Sampling
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine

TRAINING = {
    "steps": 4,
    "prompts": 4,
    "samples": 4,
    "updates": 2,
    "learning_rate": 1e-2,
    "max_response": 6,
    "validate_every": 2,
    "checkpoint_every": 2,
    "max_batches": 3,
}
QUESTIONS = [Question([2 + i % 30, 3 + i % 7], str(i)) for i in range(20)]
OBJECTIVES = {
    "ppo-clip": {"name": "ppo-clip"},
    "policy-gradient": {"name": "policy-gradient"},
    "clip-cov": {"name": "clip-cov", "fraction": 0.2, "covariance_low": 0.01, "covariance_high": 50},
    "kl-cov": {"name": "kl-cov", "fraction": 0.2},
}


def config_for(objective="ppo-clip", **training):
    settings = OBJECTIVES[objective] if isinstance(objective, str) else objective
    return RunConfig.model_validate(
        {
            "run": "test",
            "model": "m",
            "train_set": "t",
            "method": "x",
            "seed": 3,
            "advantage": {},
            "objective": settings,
            "training": TRAINING | training,
        }
    )


def grade_even(completions, answers):
    """Right when the response's first token is even: half right, and something to learn."""
    return [Outcome.CORRECT if c.token_ids[0] % 2 == 0 else Outcome.WRONG for c in completions]


def trainer_for(policy, config, folder, rows, stop=lambda: False, grader=grade_even):
    engine = TransformersEngine(policy, 40)
    hooks = Hooks(row=rows.append, stop=stop, warn=lambda text: None)
    return Trainer(config, policy, engine, grader, QUESTIONS, QUESTIONS[:5], (1,), folder, hooks)


def without_times(rows):
    return json.dumps(
        [{k: v for k, v in row.items() if not k.startswith(("time/", "throughput/"))} for row in rows]
    )


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def mini_batch(policy):
    generator = torch.Generator().manual_seed(1)
    responses = [torch.randint(2, 40, (n,), generator=generator).tolist() for n in (3, 5, 1, 6, 2, 4, 4, 2)]
    sequences = Sequences([[2, 3]] * 4 + [[5, 6, 7]] * 4, responses)
    old = measure(policy, sequences, 1.0, 64, 1000).logprob_N
    old = old + 0.3 * torch.randn(len(old), generator=generator)
    advantage = torch.randn(8, generator=generator)[sequences.sequence_N]
    return MiniBatch(sequences, old, advantage)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("micro", [8, 20])
def test_an_update_does_not_depend_on_the_micro_batch_size(policy, objective, micro):
    batch, results = mini_batch(policy), []
    for tokens in (10_000, micro):
        model = copy.deepcopy(policy)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        metrics = update(model, optimizer, batch, config_for(objective, micro_batch_tokens=tokens), (1, 2))
        results.append((weights(model), metrics))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-6, rtol=1e-4)
    for name, value in results[0][1].items():
        assert results[1][1][name] == pytest.approx(value, rel=1e-3, abs=1e-6, nan_ok=True), name
    if "cov" in objective:
        assert results[0][1]["selection/count"] == 5  # floor(0.2 x 27)


def test_scope_microbatch_selects_within_each_micro_batch(policy):
    batch = mini_batch(policy)
    settings = {"name": "kl-cov", "fraction": 0.2, "scope": "microbatch", "min_tokens": 1}
    counts = []
    for tokens in (10_000, 8):
        model = copy.deepcopy(policy)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        counts.append(update(model, optimizer, batch, config_for(settings, micro_batch_tokens=tokens), (1,)))
    assert counts[0]["selection/count"] == 5
    # One response a micro-batch: advantages are equal within it, so nothing covaries and nothing is selected.
    assert counts[1]["selection/count"] == 0


def test_scope_rollout_selects_once_for_all_updates(policy, tmp_path):
    settings = {"name": "kl-cov", "fraction": 0.5, "scope": "rollout", "coefficient": 0}
    rows = []
    trainer = trainer_for(policy, config_for(settings, filter_groups=False), tmp_path, rows)
    trainer.step()
    rollout_tokens = round(rows[0]["length/mean"] * 16)
    assert rows[0]["selection/count"] <= rollout_tokens // 2
    assert rows[0]["selection/count"] > 0


def test_loss_is_the_mean_over_tokens_not_over_responses(policy):
    batch = mini_batch(policy)
    batch = MiniBatch(
        batch.sequences, measure(policy, batch.sequences, 1.0, 64, 1000).logprob_N, batch.advantage_N
    )
    model = copy.deepcopy(policy)
    metrics = update(model, torch.optim.SGD(model.parameters(), lr=0.0), batch, config_for(), (1,))
    assert metrics["policy/loss"] == pytest.approx(-batch.advantage_N.mean().item(), abs=1e-6)


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(policy):
    batch = mini_batch(policy)
    batch.advantage_N[3] = math.inf
    before = weights(policy).clone()
    metrics = update(policy, torch.optim.SGD(policy.parameters(), lr=0.1), batch, config_for(), (1,))
    assert metrics["policy/skipped_updates"] == 1
    assert torch.equal(weights(policy), before)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_same_seed_gives_the_same_run_and_another_seed_another(policy, tmp_path, objective):
    config = config_for(objective, **({"updates": 1} if objective == "policy-gradient" else {}))
    runs = []
    for index, settings in enumerate((config, config, config.model_copy(update={"seed": 4}))):
        model, rows = copy.deepcopy(policy), []
        trainer_for(model, settings, tmp_path / str(index), rows).train()
        runs.append((weights(model), without_times(rows)))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not torch.equal(runs[0][0], runs[2][0])
    assert not torch.equal(runs[0][0], weights(policy))


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(policy, tmp_path, stop_after):
    whole, rows = copy.deepcopy(policy), []
    trainer_for(whole, config_for(), tmp_path / "whole", rows).train()
    stopped, first = copy.deepcopy(policy), []
    trainer = trainer_for(stopped, config_for(), tmp_path / "cut", first, stop=lambda: len(first) == stop_after)
    with pytest.raises(Stopped, match=f"after step {stop_after} of 4"):
        trainer.train()
    resumed, second = copy.deepcopy(policy), []
    trainer = trainer_for(resumed, config_for(), tmp_path / "cut", second)
    assert trainer.resume() == stop_after
    trainer.train()
    assert torch.equal(weights(whole), weights(resumed))
    assert without_times(rows) == without_times(first + second)


def test_every_step_has_a_row_and_the_last_one_is_measured_only(policy, tmp_path):
    rows = []
    trainer_for(policy, config_for(), tmp_path, rows).train()
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["validation/accuracy"] is not None for row in rows] == [True, False, True, False, True]
    assert "policy/loss" in rows[3]
    assert "policy/loss" not in rows[4]
    assert rows[4]["gradient_steps"] == sum("policy/loss" in row for row in rows) * 2


def test_validation_is_of_the_policy_before_the_rows_update(policy, tmp_path):
    rows = []
    trainer = trainer_for(policy, config_for(validate_every=1), tmp_path, rows)
    before = trainer.validate()
    trainer.step()
    assert rows[0]["validation/accuracy"] == before


def test_learning_raises_the_reward(policy, tmp_path):
    rows = []
    trainer_for(policy, config_for(steps=12, filter_groups=False), tmp_path, rows).train()
    assert rows[-1]["reward/mean"] > rows[0]["reward/mean"] + 0.2


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

    def grader(completions, answers):
        return [
            Outcome.CORRECT if int(answer) in mixed and c.token_ids[1] == 0 else Outcome.WRONG
            for c, answer in zip(completions, answers, strict=True)
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


def test_a_step_without_any_signal_measures_and_leaves_the_weights_alone(policy, tmp_path):
    rows = []
    grader = lambda completions, answers: [Outcome.WRONG] * len(completions)  # noqa: E731
    before = weights(policy).clone()
    trainer_for(policy, config_for(steps=1), tmp_path, rows, grader=grader).train()
    assert torch.equal(weights(policy), before)
    assert rows[0]["rollout/kept_groups"] == 0
    assert rows[0]["entropy/sequence_mean/before_filter"] > 0
    assert "policy/loss" not in rows[0]


def test_data_order_shows_every_question_once_an_epoch_and_differs_between_epochs():
    order = DataOrder(20, seed=1)
    epochs = [[order[cursor] for cursor in range(20 * e, 20 * e + 20)] for e in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [DataOrder(20, 1)[c] for c in (45, 3, 45)] == [order[45], order[3], order[45]]


def test_an_engine_with_other_weights_is_noticed(policy, tmp_path):
    stale = copy.deepcopy(policy)
    with torch.no_grad():
        stale.lm_head.weight.mul_(1.1)
    hooks = Hooks(row=lambda row: None, stop=lambda: False, warn=lambda text: None)
    trainer = Trainer(
        config_for(),
        policy,
        TransformersEngine(stale, 40),
        grade_even,
        QUESTIONS,
        QUESTIONS[:5],
        (1,),
        tmp_path,
        hooks,
    )
    with pytest.raises(ParityError, match="step 0: log-probabilities of rollout engine and trainer differ"):
        trainer.step()


def test_groups_are_never_split():
    rollout = Rollout(
        prompts=[[i] for i in range(6)],
        responses=[[10 + i] for i in range(6)],
        engine_logprobs=[[0.0]] * 6,
        rewards_PG=torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]),
    )
    chosen = rollout.groups([2, 0])
    assert chosen.prompts == [[4], [5], [0], [1]]
    assert chosen.rewards_PG.tolist() == [[4, 5], [0, 1]]
    both = Rollout.concatenate([chosen, rollout.groups([1])])
    assert both.rewards_PG.tolist() == [[4, 5], [0, 1], [2, 3]]
    assert both.responses == [[14], [15], [10], [11], [12], [13]]
