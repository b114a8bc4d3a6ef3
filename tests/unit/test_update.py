"""One update does not depend on how the batch is read, and each term of its loss does what its formula says."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from training_cases import (
    DENSE,
    FULL_KL,
    OBJECTIVES,
    config_for,
    log_distributions,
    mini_batch,
    perturbed,
    weights,
)

from entropy_mechanism.rl.batch import Sequences
from entropy_mechanism.rl.policy import Policy
from entropy_mechanism.rl.update import MiniBatch, importance, token_weights, update

VARIANTS = [(name, {}) for name in OBJECTIVES]
VARIANTS += [("gspo", {"aggregation": "sequence-mean"}), ("ppo-clip", {"aggregation": "constant"})]
VARIANTS += [("ppo-clip", {"regularisation": {"entropy": 0.1, "reference_kl": 0.1}})]
VARIANTS += [(DENSE, {}), (DENSE | {"policy": "old", "exclude_clipped": False}, {})]
VARIANTS += [(DENSE | {"draw": "top", "form": "weighted", "covariance_low": 1e-6}, {})]


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


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({"policy": "current", "exclude_clipped": False}, 1),
        ({"policy": "old", "exclude_clipped": True}, 1),
        ({"policy": "old", "exclude_clipped": False}, 0),
    ],
)
def test_choosing_over_several_micro_batches_reads_them_ahead_only_where_it_has_to(
    policy, monkeypatch, changes, passes
):
    batch, read, measure = mini_batch(policy), [], Policy.measure
    monkeypatch.setattr(Policy, "measure", lambda *given, **more: read.append(1) or measure(*given, **more))
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    update(Policy(policy), optimizer, batch, config_for(DENSE | changes, micro_batch_tokens=8), (1,))
    assert len(read) == passes


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
