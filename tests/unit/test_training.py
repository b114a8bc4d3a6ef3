"""The training loop on a random policy: invariances, filter and refill, reproducibility, resuming."""

import copy
import json
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from random_policies import random_policy

from entropy_mechanism.config import RunConfig
from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rl import loop
from entropy_mechanism.rl.batch import Rollout, Sequences
from entropy_mechanism.rl.collect import Collector, DataOrder, Question
from entropy_mechanism.rl.errors import DivergenceError, ParityError
from entropy_mechanism.rl.logprobs import TokenStatistics
from entropy_mechanism.rl.loop import Hooks, Stopped, Trainer
from entropy_mechanism.rl.measurements import check_parity
from entropy_mechanism.rl.policy import Policy
from entropy_mechanism.rl.token_records import COLUMNS, read_shards, write_shard
from entropy_mechanism.rl.update import MiniBatch, importance, token_weights, update
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
    "cispo": {"name": "cispo"},
    "gspo": {"name": "gspo"},
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
            "advantage": {"estimator": training.pop("estimator", "grpo")},
            "objective": settings,
            "regularisation": training.pop("regularisation", {}),
            "aggregation": training.pop("aggregation", "token-mean"),
            "training": TRAINING | training,
        }
    )


def grade_even(completions, questions):
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
    old = Policy(policy).measure(sequences, 1.0, 64, 1000).logprob_N
    old = old + 0.3 * torch.randn(len(old), generator=generator)
    advantage = torch.randn(8, generator=generator)[sequences.sequence_N]
    reference = old + 0.3 * torch.randn(len(old), generator=generator)
    return MiniBatch(sequences, old, advantage, reference)


VARIANTS = [(name, {}) for name in OBJECTIVES]
VARIANTS += [("gspo", {"aggregation": "sequence-mean"}), ("ppo-clip", {"aggregation": "constant"})]
VARIANTS += [("ppo-clip", {"regularisation": {"entropy": 0.1, "reference_kl": 0.1}})]
DENSE = {
    "name": "clip-cov",
    "fraction": 0.2,
    "covariance_low": 0.01,
    "covariance_high": 50,
    "count_selected": False,
}
VARIANTS += [(DENSE, {}), (DENSE | {"draw": "top", "form": "weighted", "covariance_low": 1e-6}, {})]


@pytest.mark.parametrize(("objective", "changes"), VARIANTS, ids=str)
@pytest.mark.parametrize("micro", [8, 20])
def test_an_update_does_not_depend_on_the_micro_batch_size(policy, objective, changes, micro):
    batch, results = mini_batch(policy), []
    for tokens in (10_000, micro):
        model = copy.deepcopy(policy)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        config = config_for(objective, micro_batch_tokens=tokens, **changes)
        metrics, tokens = update(Policy(model), optimizer, batch, config, (1, 2))
        results.append((weights(model), metrics, tokens.selected))
    assert torch.equal(results[0][2], results[1][2])
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-6, rtol=1e-4)
    for name, value in results[0][1].items():
        assert results[1][1][name] == pytest.approx(value, rel=1e-3, abs=1e-6, nan_ok=True), name
    if "selection/count" in results[0][1]:
        assert results[0][1]["selection/count"] == 5  # floor(0.2 x 27)


def hottest(logprob, advantage, count):
    """Places of the tokens of highest covariance, those of Eq. 10."""
    covariance = (logprob - logprob.mean()) * (advantage - advantage.mean())
    return set(covariance.argsort(descending=True)[:count].tolist())


@pytest.mark.parametrize("micro", [10_000, 8])
def test_an_update_reads_and_selects_by_log_probabilities_at_the_rollout_temperature(policy, micro):
    batch, temperature = mini_batch(policy), 0.2
    logits = log_distributions(policy, batch.sequences).detach()  # log pi serves as logits
    chosen = batch.sequences.targets_N[:, None]
    cold, warm = ((logits / t).log_softmax(-1).gather(1, chosen).squeeze(1) for t in (temperature, 1.0))
    config = config_for("kl-cov", temperature=temperature, micro_batch_tokens=micro)
    _, tokens = update(Policy(policy), torch.optim.SGD(policy.parameters(), lr=0.1), batch, config, (1,))
    torch.testing.assert_close(tokens.logprob.double(), cold, atol=1e-4, rtol=1e-4)
    selected = set(tokens.selected.nonzero().squeeze(1).tolist())
    assert selected == hottest(cold, batch.advantage_N, 5) != hottest(warm, batch.advantage_N, 5)


def test_dropout_is_off_so_that_an_update_begins_at_the_policy_that_sampled(policy, tmp_path, monkeypatch):
    for layer in policy.model.layers:
        layer.self_attn.attention_dropout = 0.5
    policy.train()
    config = config_for(updates=1, filter_groups=False, micro_batch_tokens=10_000)
    # `first` would take what the update reads for what was measured before it.
    measured = lambda *a: update(*a[:6], False, a[7])  # noqa: E731
    monkeypatch.setattr(loop, "update", measured)
    rows = []
    trainer_for(policy, config, tmp_path, rows).step()
    assert rows[0]["policy/absolute_log_ratio"] < 1e-5


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("micro", [10_000, 8])
def test_an_empty_response_changes_nothing_in_a_mean_over_tokens(policy, objective, micro):
    batch, results = mini_batch(policy), []
    prompts, responses = batch.sequences.prompts, batch.sequences.responses
    with_empty = Sequences([*prompts[:2], [4], *prompts[2:], [5]], [*responses[:2], [], *responses[2:], []])
    for sequences in (batch.sequences, with_empty):
        model = copy.deepcopy(policy)
        part = MiniBatch(sequences, batch.old_logprob_N, batch.advantage_N, batch.reference_logprob_N)
        config = config_for(objective, micro_batch_tokens=micro)
        metrics, tokens = update(Policy(model), torch.optim.SGD(model.parameters(), lr=0.1), part, config, (1,))
        assert all(math.isfinite(value) for name, value in metrics.items() if not name.startswith("selection/"))
        results.append((weights(model), tokens.selected))
    assert torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_update_of_empty_responses_alone_leaves_the_weights_alone(policy, objective):
    batch = MiniBatch(Sequences([[2], [3, 4]], [[], []]), torch.zeros(0), torch.zeros(0))
    before = weights(policy).clone()
    config = config_for(objective)
    metrics, _ = update(Policy(policy), torch.optim.SGD(policy.parameters(), lr=0.1), batch, config, (1,))
    assert torch.equal(weights(policy), before)
    assert metrics["policy/loss"] == metrics["policy/gradient_norm"] == metrics["policy/skipped_updates"] == 0


@pytest.mark.parametrize(("objective", "estimator"), [("gspo", "grpo"), ("clip-cov", "prime"), ("kl-cov", "rloo")])
def test_responses_of_one_token_train_without_a_value_that_is_not_finite(policy, tmp_path, objective, estimator):
    rows = []
    config = config_for(objective, estimator=estimator, max_response=1, steps=2, filter_groups=False)
    trainer_for(policy, config, tmp_path, rows).train()
    assert rows[0]["length/max"] == 1
    for name, value in rows[0].items():
        assert value is None or math.isfinite(value) or name.startswith("selection/"), name
    assert rows[0]["policy/gradient_norm"] > 0


@pytest.mark.parametrize("micro", [10_000, 20, 8])
def test_kl_cov_does_nothing_in_the_first_update_however_the_batch_is_read(policy, micro):
    batch = mini_batch(policy)
    measured = Policy(policy).measure(batch.sequences, 1.0, 64, 30).logprob_N
    noise = 1e-6 * torch.randn(len(measured), generator=torch.Generator().manual_seed(5))
    batch = MiniBatch(batch.sequences, measured + noise, batch.advantage_N)  # old log-probs of another layout
    gradients = []
    for coefficient in (0.0, 5.0):
        model = copy.deepcopy(policy)
        settings = {"name": "kl-cov", "fraction": 0.3, "coefficient": coefficient}
        config = config_for(settings, micro_batch_tokens=micro)
        update(Policy(model), torch.optim.SGD(model.parameters(), lr=0.0), batch, config, (1,), first=True)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.equal(*gradients)


FULL_KL = {"name": "kl-cov", "fraction": 0.3, "penalty": "full", "coefficient": 0.7}


def perturbed(policy):
    """The policy that sampled, a step away."""
    other, generator = copy.deepcopy(policy), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return other


def log_distributions(policy, sequences):
    """log pi over the vocabulary before every response token, [N, V], each sequence read alone by transformers."""
    parts = []
    for prompt, response in zip(sequences.prompts, sequences.responses, strict=True):
        logits = policy(torch.tensor([prompt + response])).logits[0].double()
        parts.append(logits[len(prompt) - 1 : -1].log_softmax(-1))
    return torch.cat(parts)


@pytest.mark.parametrize("micro", [10_000, 8])
def test_the_full_kl_penalty_is_the_kl_over_the_vocabulary_at_the_selected_tokens(policy, micro):
    batch, old = mini_batch(policy), perturbed(policy)
    losses, gradients = [], []
    for coefficient in (0.0, 0.7):
        model = copy.deepcopy(policy)
        config = config_for(FULL_KL | {"coefficient": coefficient}, micro_batch_tokens=micro, gradient_clip=1e9)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        metrics, tokens = update(Policy(model), optimizer, batch, config, (1,), old_policy=Policy(old))
        losses.append(metrics["policy/loss"])
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    model = copy.deepcopy(policy)
    new_NV, old_NV = log_distributions(model, batch.sequences), log_distributions(old, batch.sequences).detach()
    assert 0 < int(tokens.selected.sum()) < len(tokens.selected)
    expected = 0.7 * (old_NV.exp() * (old_NV - new_NV)).sum(1)[tokens.selected].sum() / len(tokens.selected)
    assert losses[1] - losses[0] == pytest.approx(expected.item(), rel=1e-4)
    expected.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(gradients[1] - gradients[0], gradient, atol=1e-5, rtol=1e-3)


def test_the_full_kl_penalty_holds_on_to_the_policy_that_sampled(policy, tmp_path):
    trainer = trainer_for(policy, config_for(FULL_KL, filter_groups=False), tmp_path, [])
    for _ in range(2):
        before = weights(trainer.policy.model)
        trainer.step()
        trainer.state.step += 1
        assert torch.equal(weights(trainer.old_policy.model), before)
        assert not torch.equal(weights(trainer.policy.model), before)


def test_scope_microbatch_selects_within_each_micro_batch(policy):
    batch = mini_batch(policy)
    settings = {"name": "kl-cov", "fraction": 0.2, "scope": "microbatch", "min_tokens": 1}
    counts = []
    for tokens in (10_000, 8):
        model = copy.deepcopy(policy)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        counts.append(
            update(Policy(model), optimizer, batch, config_for(settings, micro_batch_tokens=tokens), (1,))[0]
        )
    assert counts[0]["selection/count"] == 5
    # One response a micro-batch: advantages are equal within it, so nothing covaries and nothing is selected.
    assert counts[1]["selection/count"] == 0


def test_scope_rollout_selects_once_for_all_updates(policy, tmp_path):
    settings = {"name": "kl-cov", "fraction": 0.1, "scope": "rollout", "coefficient": 0}
    config = config_for(settings, filter_groups=False, record_tokens_every=1)
    trainer_for(policy, config, tmp_path / "checkpoints", []).step()
    records = read_shards(tmp_path / "tokens")
    logprob, advantage = records["old_logprob"].to_numpy(float), records["advantage"].to_numpy(float)
    covariance = (logprob - logprob.mean()) * (advantage - advantage.mean())
    highest = covariance.argsort()[::-1][: int(0.1 * len(records))]
    assert sorted(records.index[records["selected"]]) == sorted(highest)
    shares = records.groupby("update")["selected"].mean()
    assert shares[0] != shares[1]  # within each update it would be the same share


def test_loss_is_the_mean_that_the_aggregation_names(policy):
    batch = mini_batch(policy)
    old = Policy(policy).measure(batch.sequences, 1.0, 64, 1000).logprob_N
    batch = MiniBatch(batch.sequences, old, batch.advantage_N)
    lengths = batch.sequences.response_lengths_B.tolist()
    per_response = [part.mean().item() for part in batch.advantage_N.split(lengths)]
    expected = {
        "token-mean": -batch.advantage_N.mean().item(),
        "sequence-mean": -sum(per_response) / 8,
        "constant": -batch.advantage_N.sum().item() / (8 * 6),
        "micro-batch-mean": -batch.advantage_N.mean().item(),
    }
    for aggregation, value in expected.items():
        model = copy.deepcopy(policy)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        metrics, _ = update(Policy(model), optimizer, batch, config_for(aggregation=aggregation), (1,))
        assert metrics["policy/loss"] == pytest.approx(value, abs=1e-6), aggregation


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("micro", [10_000, 8])
def test_detached_tokens_are_in_the_denominator_unless_left_out(policy, counted, micro):
    batch = mini_batch(policy)
    old = Policy(policy).measure(batch.sequences, 1.0, 64, 1000).logprob_N  # ratios are 1: a loss is -A
    batch = MiniBatch(batch.sequences, old, batch.advantage_N)
    config = config_for(DENSE | {"count_selected": counted}, micro_batch_tokens=micro)
    metrics, tokens = update(Policy(policy), torch.optim.SGD(policy.parameters(), lr=0.0), batch, config, (1,))
    others = batch.advantage_N[~tokens.selected]
    assert len(others) == 22
    expected = -others.sum().item() / (27 if counted else 22)
    assert metrics["policy/loss"] == pytest.approx(expected, abs=1e-6)


def test_micro_batch_mean_weighs_micro_batches_by_their_responses():
    sequences = Sequences([[2], [2], [2]], [[3], [4, 5, 6, 7, 8], [9, 10, 11]])
    parts = [sequences[0:1], sequences[1:3]]
    found = [token_weights(part, sequences, "micro-batch-mean", 6, torch.float64) for part in parts]
    assert found[0].tolist() == pytest.approx([1 / 3])
    assert found[1].tolist() == pytest.approx([2 / 3 / 8] * 8)
    assert sum(part.sum().item() for part in found) == pytest.approx(1)


def test_an_entropy_bonus_raises_entropy_and_its_gradient_is_exact(policy):
    batch = mini_batch(policy)
    batch = MiniBatch(batch.sequences, batch.old_logprob_N, torch.zeros_like(batch.advantage_N))
    before = Policy(policy).measure(batch.sequences, 1.0, 64, 1000).entropy_N.mean().item()
    model = copy.deepcopy(policy)
    config = config_for(regularisation={"entropy": 1.0}, gradient_clip=1e9)
    update(Policy(model), torch.optim.SGD(model.parameters(), lr=1e-3), batch, config, (1,))
    after = Policy(model).measure(batch.sequences, 1.0, 64, 1000).entropy_N.mean().item()
    gradient = sum(p.grad.square().sum().item() for p in model.parameters())
    assert after - before == pytest.approx(1e-3 * gradient, rel=0.1)  # first order: dH = lr |grad H|^2


def test_a_reference_kl_pulls_the_policy_back(policy):
    batch = mini_batch(policy)
    batch.advantage_N.zero_()
    model = copy.deepcopy(policy)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    config = config_for(regularisation={"reference_kl": 1.0})
    values = [update(Policy(model), optimizer, batch, config, (1,))[0]["policy/reference_kl"] for _ in range(20)]
    assert 0 < values[-1] < values[0]


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(policy):
    batch = mini_batch(policy)
    batch.advantage_N[3] = math.inf
    before = weights(policy).clone()
    metrics, _ = update(Policy(policy), torch.optim.SGD(policy.parameters(), lr=0.1), batch, config_for(), (1,))
    assert metrics["policy/skipped_updates"] == 1
    assert torch.equal(weights(policy), before)


def test_a_loss_that_is_not_finite_changes_nothing_though_its_gradient_is(policy):
    batch = mini_batch(policy)
    batch.reference_logprob_N[3] = -math.inf  # k1 is log pi - log pi_ref: its slope does not see the reference
    config = config_for(regularisation={"reference_kl": 0.1, "kl_estimator": "k1"})
    before = weights(policy).clone()
    metrics, _ = update(Policy(policy), torch.optim.SGD(policy.parameters(), lr=0.1), batch, config, (1,))
    assert math.isfinite(metrics["policy/gradient_norm"])
    assert metrics["policy/skipped_updates"] == 1
    assert torch.equal(weights(policy), before)


def test_skipped_updates_of_the_reward_model_count(policy, tmp_path, monkeypatch):
    config = config_for(estimator="prime", max_skipped_updates=1, filter_groups=False)
    trainer = trainer_for(policy, config, tmp_path, [])
    skipped = {"reward_model/skipped_updates": 1.0}
    monkeypatch.setattr(trainer.reward_model, "update", lambda sequences, right_B: skipped)
    with pytest.raises(DivergenceError, match=r"step 1: 2 updates .*allowed: 1"):
        trainer.train()


def test_too_many_gradients_that_are_not_finite_end_the_run(policy, tmp_path, monkeypatch):
    rows = []
    config = config_for(max_skipped_updates=3, filter_groups=False)
    trainer = trainer_for(policy, config, tmp_path, rows)
    monkeypatch.setattr(
        trainer, "advantages", lambda rollout: torch.full((sum(map(len, rollout.responses)),), torch.nan)
    )
    before = weights(policy).clone()
    with pytest.raises(DivergenceError, match=r"step 1: 4 updates .*allowed: 3"):
        trainer.train()
    assert torch.equal(weights(policy), before)
    assert rows[0]["policy/skipped_updates"] == 2


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


@pytest.mark.parametrize(("stop_after", "estimator"), [(1, "grpo"), (2, "prime"), (3, "reinforce++")])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(policy, tmp_path, stop_after, estimator):
    config = config_for(estimator=estimator, regularisation={"reference_kl": 0.1})
    whole, rows = copy.deepcopy(policy), []
    trainer_for(whole, config, tmp_path / "whole", rows).train()
    stopped, first = copy.deepcopy(policy), []
    trainer = trainer_for(stopped, config, tmp_path / "cut", first, stop=lambda: len(first) == stop_after)
    with pytest.raises(Stopped, match=f"after step {stop_after} of 4"):
        trainer.train()
    resumed, second = copy.deepcopy(policy), []
    trainer = trainer_for(resumed, config, tmp_path / "cut", second)
    assert trainer.resume() == stop_after
    trainer.train()
    assert torch.equal(weights(whole), weights(resumed))
    assert without_times(rows) == without_times(first + second)


@pytest.mark.parametrize("lost", ["no signal", "not finite"])
def test_a_run_stopped_before_its_first_update_goes_on_as_if_it_had_not_been_stopped(policy, tmp_path, lost):
    """There is no optimiser state to save then, and Adam counts its steps from the first."""

    def attempt(folder, model, rows, stop):
        def grader(completions, answers):
            signal = rows or lost != "no signal"
            return grade_even(completions, answers) if signal else [Outcome.WRONG] * len(answers)

        trainer = trainer_for(model, config_for(checkpoint_every=10), folder, rows, stop, grader)
        if lost == "not finite":
            estimate = trainer.advantages
            trainer.advantages = lambda rollout: estimate(rollout) * (1 if rows else math.inf)
        trainer.resume()
        trainer.train()

    whole, rows = copy.deepcopy(policy), []
    attempt(tmp_path / "whole", whole, rows, lambda: False)
    first = []
    with pytest.raises(Stopped):
        attempt(tmp_path / "cut", copy.deepcopy(policy), first, lambda: len(first) == 1)
    assert not rows[0].get("policy/gradient_norm", 0) > 0  # no update was made
    resumed = copy.deepcopy(policy)
    attempt(tmp_path / "cut", resumed, first, lambda: False)
    assert torch.equal(weights(whole), weights(resumed))
    assert without_times(rows) == without_times(first)


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


def test_entropy_is_of_the_policy_before_the_rows_update(policy, tmp_path):
    rows, before = [], Policy(copy.deepcopy(policy))
    trainer = trainer_for(policy, config_for(filter_groups=False), tmp_path, rows)
    sequences = trainer.collector.collect(step=0, cursor=0).first.sequences
    expected = before.measure(sequences, 1.0, 64, 10_000).entropy_N.double().mean().item()
    trainer.step()
    for when in ("before_filter", "after_filter"):
        assert rows[0][f"entropy/token_mean/{when}"] == pytest.approx(expected, rel=1e-5)


def test_every_update_draws_with_a_seed_of_its_own(policy, tmp_path, monkeypatch):
    seeds = []
    monkeypatch.setattr(loop, "update", lambda *a: seeds.append(a[4]) or update(*a))
    trainer_for(policy, config_for("clip-cov", filter_groups=False), tmp_path, []).train()
    assert len(seeds) == len(set(seeds)) == 8
    draws = []
    for seed in (seeds[0], seeds[1], seeds[2], seeds[0]):
        model, batch = random_policy(), mini_batch(random_policy())
        config = config_for(OBJECTIVES["clip-cov"] | {"covariance_low": -50.0})
        _, tokens = update(Policy(model), torch.optim.SGD(model.parameters(), lr=0.1), batch, config, seed)
        draws.append(tuple(tokens.selected.tolist()))
    assert draws[0] == draws[3]
    assert len(set(draws)) == 3


def accuracies(trainer, values):
    """Let validation find these accuracies, one after another by step."""
    trainer.validate = lambda: values[trainer.state.step]
    return trainer


def test_the_result_is_the_last_policy_unless_the_best_on_validation_is_asked_for(policy, tmp_path):
    values, kept = [0.1, 0.4, 0.2, 0.4, 0.3], {}
    for final in ("last", "best"):
        config = config_for(final=final, validate_every=1, filter_groups=False)
        trainer = accuracies(trainer_for(copy.deepcopy(policy), config, tmp_path / final / "c", []), values)
        versions = versions_of(trainer)
        trainer.train()
        version, found = trainer.result()
        assert version == {"last": 4, "best": 1}[final]  # of equal accuracies the first
        assert torch.equal(torch.cat([found[name].flatten() for name in found]), versions[version])
        kept[final] = found
    assert not all(torch.equal(kept["last"][name], kept["best"][name]) for name in kept["last"])


def versions_of(trainer):
    """Weights by version, noted by the hook that is asked before every step."""
    versions = {}

    def note():
        values = trainer.policy.model.state_dict().values()
        versions[trainer.state.step] = torch.cat([value.flatten().clone() for value in values])
        return False

    trainer.hooks = Hooks(lambda row: None, note, print)
    return versions


def killed(rows):
    if len(rows) == 6:
        raise KeyboardInterrupt
    return False


def test_the_best_policy_survives_a_kill_with_later_ones_that_never_come_again(policy, tmp_path):
    """As on a GPU, where steps done again may go otherwise: the best that the checkpoint knew is still there."""
    config = config_for(final="best", validate_every=1, checkpoint_every=2, steps=6, filter_groups=False)
    rows = []
    trainer = trainer_for(copy.deepcopy(policy), config, tmp_path / "c", rows, stop=lambda: killed(rows))
    accuracies(trainer, [0.5, 0, 0.6, 0, 0.7, 0.8, 1])
    trainer.save, save = lambda: save() if trainer.state.step == 2 else None, trainer.save
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    again = accuracies(trainer_for(copy.deepcopy(policy), config, tmp_path / "c", []), [0.1] * 7)
    assert again.resume() == 2
    again.train()
    version, _ = again.result()
    assert version == 0


def test_a_best_policy_of_steps_done_again_is_not_pushed_out_by_those_of_before(policy, tmp_path):
    config = config_for(final="best", validate_every=1, checkpoint_every=2, steps=6, filter_groups=False)
    rows = []
    trainer = trainer_for(copy.deepcopy(policy), config, tmp_path / "c", rows, stop=lambda: killed(rows))
    accuracies(trainer, [0.5, 0, 0.6, 0, 0.7, 0.8, 1])
    trainer.save, save = lambda: save() if trainer.state.step == 2 else None, trainer.save
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    again = trainer_for(copy.deepcopy(policy), config, tmp_path / "c", [])
    accuracies(again, [0, 0, 0, 0.55, 0, 0, 0])
    assert again.resume() == 2
    again.train()
    assert again.result()[0] == 3


@pytest.mark.parametrize("estimator", ["grpo", "rloo", "reinforce++", "reinforce++-baseline", "prime"])
def test_every_estimator_trains_without_a_value_that_is_not_finite(policy, tmp_path, estimator):
    rows = []
    config = config_for(estimator=estimator, regularisation={"entropy": 1e-3, "reference_kl": 1e-2})
    trainer_for(policy, config, tmp_path, rows).train()
    trained = [row for row in rows if "policy/loss" in row]
    assert trained
    assert all(math.isfinite(value) for row in trained for value in row.values() if value is not None)
    assert sum(row["policy/skipped_updates"] for row in trained) == 0


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


def test_a_step_without_any_signal_measures_and_leaves_the_weights_alone(policy, tmp_path):
    rows = []
    grader = lambda completions, questions: [Outcome.WRONG] * len(completions)  # noqa: E731
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


def test_mismatch_metrics_are_those_of_the_importance_weights(policy):
    sequences = Sequences([[2, 3], [4]], [[5, 6, 7], [8]])
    trainer = torch.tensor([-1.0, -2.0, -0.5, -3.0])
    engine = torch.tensor([-1.02, -1.97, -0.5, -3.05])
    rollout = Rollout(
        prompts=sequences.prompts,
        responses=sequences.responses,
        engine_logprobs=[engine[:3].tolist(), engine[3:].tolist()],
        rewards_PG=torch.zeros(1, 2),
        questions=[0, 0],
    )
    found = check_parity(rollout, TokenStatistics(trainer, torch.zeros(4)), "bfloat16", 0)
    ratio = [math.exp(x) for x in (0.02, -0.03, 0.0, 0.05)]
    expected = {
        "mismatch/k1": (-0.02 + 0.03 - 0.0 - 0.05) / 4,
        "mismatch/k3": sum(r - 1 - math.log(r) for r in ratio) / 4,
        "mismatch/max": 0.05,
        "mismatch/effective_sample_size": sum(ratio) ** 2 / sum(r * r for r in ratio) / 4,
    }
    assert found == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ParityError, match=r"step 3: .* differ by up to 5.00e-02 nats"):
        check_parity(rollout, TokenStatistics(trainer, torch.zeros(4)), "float32", 3)


def test_parity_is_checked_and_logged_also_where_no_group_has_a_signal(policy, tmp_path):
    rows = []
    right = lambda completions, questions: [Outcome.CORRECT] * len(completions)  # noqa: E731
    trainer_for(policy, config_for(), tmp_path, rows, grader=right).step()
    assert rows[0]["rollout/kept_groups"] == 0
    assert 0 <= rows[0]["mismatch/max"] < 1e-4
    assert rows[0]["mismatch/effective_sample_size"] == pytest.approx(1, abs=1e-6)


class OtherEngine(TransformersEngine):
    """Claims log-probabilities that are off by some rounding, another for every token."""

    def generate(self, prompts, sampling, seeds):
        groups = super().generate(prompts, sampling, seeds)
        for completion in (completion for group in groups for completion in group):
            completion.logprobs[:] = [value - (i % 3) * 2e-4 for i, value in enumerate(completion.logprobs)]
        return groups


@pytest.mark.parametrize("micro", [10_000, 8])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_importance_weights_multiply_each_tokens_loss_and_are_cut_at_the_cap(policy, objective, micro):
    batch, cap = mini_batch(policy), 1.1
    engine = batch.old_logprob_N - torch.linspace(-0.4, 0.4, len(batch.old_logprob_N))
    weight = importance(batch.old_logprob_N, engine, cap)
    expected = torch.linspace(-0.4, 0.4, len(engine)).exp().clamp(max=cap)
    torch.testing.assert_close(weight, expected)
    assert 0 < int((weight == cap).sum()) < len(weight)
    # By hand: the gradient of the weighted loss is that of a loss whose weights of the mean carry the factor.
    gradients = []
    for importance_N, factor in ((weight, None), (None, weight)):
        model = copy.deepcopy(policy)
        config = config_for(objective, micro_batch_tokens=micro, gradient_clip=1e9)
        part = replace(batch, importance_N=importance_N)
        with pytest.MonkeyPatch.context() as patch:
            if factor is not None:
                plain = token_weights

                def weighted(rows, whole, *rest, plain=plain, factor=factor):
                    where = [whole.responses.index(response) for response in rows.responses]
                    return plain(rows, whole, *rest) * factor[whole.token_index(where)]

                patch.setattr("entropy_mechanism.rl.update.token_weights", weighted)
            update(Policy(model), torch.optim.SGD(model.parameters(), lr=0.0), part, config, (1,))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert gradients[0].norm() > 0
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_importance_weights_leave_the_added_terms_alone(policy):
    batch = mini_batch(policy)
    batch = replace(batch, importance_N=torch.zeros(len(batch.old_logprob_N)))
    config = config_for(regularisation={"entropy": 0.1, "reference_kl": 0.2})
    metrics, _ = update(Policy(policy), torch.optim.SGD(policy.parameters(), lr=0.0), batch, config, (1,))
    terms = 0.2 * metrics["policy/reference_kl"] - 0.1 * metrics["policy/entropy"]
    assert metrics["policy/loss"] == pytest.approx(terms, rel=1e-5)


def test_a_run_without_a_cap_ignores_the_engines_logprobs_and_one_with_it_uses_them(policy, tmp_path):
    ends = []
    for engine, cap in ((TransformersEngine, None), (OtherEngine, None), (OtherEngine, 2.0)):
        model, rows = copy.deepcopy(policy), []
        hooks = Hooks(row=rows.append, stop=lambda: False, warn=lambda text: None)
        places = (grade_even, QUESTIONS, QUESTIONS[:5], (1,), tmp_path / f"{len(ends)}", hooks)
        Trainer(config_for(importance_cap=cap), model, engine(model, 40), *places).train()
        ends.append(weights(model))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[1], ends[2])


def test_an_engine_with_a_model_of_its_own_gets_the_weights_of_every_update(policy, tmp_path):
    own = copy.deepcopy(policy)
    hooks = Hooks(row=lambda row: None, stop=lambda: False, warn=lambda text: None)
    places = (grade_even, QUESTIONS, QUESTIONS[:5], (1,), tmp_path, hooks)
    trainer = Trainer(config_for(filter_groups=False), policy, TransformersEngine(own, 40), *places)
    before = weights(own).clone()
    trainer.train()  # checks their parity at every step
    assert torch.equal(weights(own), weights(policy))
    assert not torch.equal(weights(own), before)


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


@pytest.mark.parametrize("objective", ["ppo-clip", "clip-cov", "kl-cov"])
def test_token_records_hold_what_the_updates_saw(policy, tmp_path, objective):
    rows = []
    config = config_for(objective, record_tokens_every=2, filter_groups=False)
    trainer_for(copy.deepcopy(policy), config, tmp_path / "checkpoints", rows).train()
    records = read_shards(tmp_path / "tokens")
    assert list(records) == list(COLUMNS)
    assert sorted(records["step"].unique()) == [0, 2]
    first = records[records["step"] == 0]
    assert len(first) == round(rows[0]["length/mean"] * 16)
    assert first["update"].value_counts().sort_index().index.tolist() == [0, 1]
    at_start = first[first["update"] == 0]
    assert (at_start["old_logprob"] - at_start["new_logprob"]).abs().max() < 1e-5
    for _, part in records.groupby(["step", "update"]):
        logprob, advantage = part["new_logprob"].to_numpy(float), part["advantage"].to_numpy(float)
        expected = (logprob - logprob.mean()) * (advantage - advantage.mean())
        assert part["covariance"].to_numpy() == pytest.approx(expected, abs=1e-4)
        responses = part.groupby(["prompt", "sample"])
        assert (responses["position"].max() + 1 == responses.size()).all()
        assert responses["advantage"].nunique().max() == 1
    assert rows[0]["entropy/token_mean/after_filter"] == pytest.approx(first["entropy"].mean(), rel=1e-5)
    if objective == "ppo-clip":
        ratio = (first["new_logprob"] - first["old_logprob"]).map(math.exp)
        cut = ((ratio > 1.2) & (first["advantage"] > 0)) | ((ratio < 0.8) & (first["advantage"] < 0))
        assert (first["clipped"] == cut).all()
        assert not first["selected"].any()
    else:
        chosen = first[first["selected"]]
        assert len(chosen) == rows[0]["selection/count"] > 0
        entropy = chosen.groupby("update")["entropy"].mean().mean()  # of the mean over the step's updates
        assert rows[0]["selection/entropy"] == pytest.approx(entropy, rel=1e-5)


def test_token_records_of_another_schema_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("entropy_mechanism.rl.token_records.SCHEMA_VERSION", 99)
    write_shard(tmp_path, 0, [pd.DataFrame(columns=list(COLUMNS))])
    monkeypatch.undo()
    with pytest.raises(ValueError, match="schema 99; this version reads 2"):
        read_shards(tmp_path)
