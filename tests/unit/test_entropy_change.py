"""The measured change of entropy after the same prefixes, and Lemma 1's prediction of it."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from random_policies import random_policy
from training_cases import (
    FULL_KL,
    config_for,
    log_distributions,
    perturbed,
    trainer_for,
    weights,
    without_times,
)

from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rl.batch import Sequences
from entropy_mechanism.rl.entropy_change import EntropyChange
from entropy_mechanism.rl.loop import Stopped
from entropy_mechanism.rl.policy import Policy

SAME, PREDICTED = "entropy_change/same_prefix", "entropy_change/predicted"
LOGIT, WEIGHTED = "entropy_change/logit_advantage", "entropy_change/logit_weighted_advantage"
SEQUENCES = Sequences([[2, 3], [5, 6, 7], [4], [9, 8]], [[3, 4, 5, 6], [7], [], [2, 9, 11, 13, 17, 1]])


def by_hand(before, after, sequences):
    """Change of the entropy and -Cov(log pi, z' - z), tokens averaged per response and then responses."""
    totals = torch.zeros(2, dtype=torch.float64)
    filled = [row for row, response in enumerate(sequences.responses) if response]
    for row in filled:
        one = sequences[[row]]
        old, new = (log_distributions(model, one).detach() for model in (before, after))
        p, entropies = old.exp(), [-(values.exp() * values).sum(1) for values in (old, new)]
        change = new - old
        covariance = (p * old * change).sum(1) - (p * old).sum(1) * (p * change).sum(1)
        totals += torch.stack([(entropies[1] - entropies[0]).mean(), -covariance.mean()])
    return (totals / len(filled)).tolist()


def nothing_trained():
    return torch.zeros(len(SEQUENCES.targets_N), dtype=torch.bool), torch.zeros(0), torch.zeros(0)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("micro", "chunk"), [(10_000, 1024), (8, 2), (1, 1)])
def test_entropy_change_and_covariance_are_those_over_the_vocabulary(tied, micro, chunk):
    before = random_policy(tied)
    training = config_for(micro_batch_tokens=micro, logprob_chunk=chunk, temperature=0.7).training
    change = EntropyChange(Policy(before), SEQUENCES, training)
    after = perturbed(before)
    expected = by_hand(before, after, SEQUENCES)
    with torch.no_grad():  # what is kept must not be the weights themselves, which are trained in place
        for own, other in zip(before.parameters(), after.parameters(), strict=True):
            own.copy_(other)
    found = change.measure(Policy(before), *nothing_trained())
    assert [found[SAME], found[PREDICTED]] == pytest.approx(expected, abs=1e-6)
    assert min(map(abs, expected)) > 1e-3


def test_the_error_of_lemma_1_falls_with_the_square_of_the_change():
    before, other = random_policy().double(), perturbed(random_policy()).double()
    errors = []
    for size in (0.02, 0.01, 0.005):
        after = copy.deepcopy(before)
        with torch.no_grad():
            for own, far in zip(after.parameters(), other.parameters(), strict=True):
                own.lerp_(far, size)
        change = EntropyChange(Policy(before), SEQUENCES, config_for().training)
        found = change.measure(Policy(after), *nothing_trained())
        errors.append(abs(found[SAME] - found[PREDICTED]))
    assert [math.log2(a / b) for a, b in pairwise(errors)] == pytest.approx([2, 2], abs=0.1)


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        ("clip-cov", {"micro_batch_tokens": 20}),
        (FULL_KL, {"estimator": "prime", "regularisation": {"reference_kl": 0.1, "entropy": 0.01}}),
        ("ppo-clip", {"dtype": "bfloat16"}),
    ],
    ids=str,
)
def test_a_run_that_measures_its_entropy_change_is_the_run_that_does_not(policy, tmp_path, objective, changes):
    runs = []
    for every in (0, 2):
        model, rows = copy.deepcopy(policy), []
        config = config_for(objective, measure_entropy_change_every=every, filter_groups=False, **changes)
        torch.manual_seed(7)
        trainer_for(model, config, tmp_path / str(every), rows).train()
        found = [
            {name: row.pop(name) for name in (SAME, PREDICTED, LOGIT, WEIGHTED) if name in row} for row in rows
        ]
        runs.append((weights(model), without_times(rows), torch.random.get_rng_state(), found))
    off, measured = runs
    assert torch.equal(off[0], measured[0])
    assert off[1] == measured[1]
    assert torch.equal(off[2], measured[2])
    assert [bool(found) for found in off[3]] == [False] * 5
    assert [bool(found) for found in measured[3]] == [True, False, True, False, False]


def test_the_prefixes_are_those_of_the_unfiltered_rollout_and_the_updates_those_of_its_step(policy, tmp_path):
    rows, config = [], config_for(measure_entropy_change_every=1)
    trainer = trainer_for(policy, config, tmp_path, rows)
    first = trainer.collector.collect(0, 0).first.sequences
    before = copy.deepcopy(policy)
    trainer.step()
    assert rows[0]["rollout/all_wrong_share"] + rows[0]["rollout/all_right_share"] > 0  # the filter drops some
    expected = by_hand(before, policy, first)
    assert [rows[0][SAME], rows[0][PREDICTED]] == pytest.approx(expected, abs=1e-6)
    assert abs(expected[0]) > 1e-3


def test_changes_of_sampled_logits_are_correlated_with_the_advantages_of_their_own_tokens(policy, tmp_path):
    rows, config = [], config_for(measure_entropy_change_every=1)
    trainer = trainer_for(policy, config, tmp_path, rows)
    collected = trainer.collector.collect(0, 0)
    first, groups = collected.first, collected.kept_in_first
    assert 0 < len(groups) < 4
    assert len(collected.kept.rewards_PG) > len(groups)  # filled up from a later batch, which is not measured
    before = copy.deepcopy(policy)
    trainer.step()
    moved, probability, advantage = [], [], []
    for group in groups:
        rewards = first.rewards_PG[group]
        for sample in range(4):
            one = first.sequences[[4 * group + sample]]
            old, new = (log_distributions(model, one).detach() for model in (before, policy))
            change, token = new - old, one.targets_N[:, None]
            moved.append(change.gather(1, token).squeeze(1) - (old.exp() * change).sum(1))
            probability.append(old.gather(1, token).squeeze(1).exp())
            value = (rewards[sample] - rewards.mean()) / (rewards.std() + 1e-6)
            advantage.append(torch.full((len(token),), float(value), dtype=torch.float64))
    moved, probability, advantage = (torch.cat(parts).numpy() for parts in (moved, probability, advantage))
    assert rows[0][LOGIT] == pytest.approx(np.corrcoef(moved, advantage)[0, 1], abs=1e-4)
    assert rows[0][WEIGHTED] == pytest.approx(np.corrcoef(moved, probability * advantage)[0, 1], abs=1e-4)
    assert 0.2 < rows[0][LOGIT] < 1


def test_a_step_without_update_has_no_entropy_change(policy, tmp_path):
    rows, config = [], config_for(measure_entropy_change_every=1, steps=1, max_batches=1)
    trainer = trainer_for(policy, config, tmp_path, rows, grader=lambda c, q: [Outcome.WRONG] * len(c))
    trainer.train()
    assert not any(name.startswith("entropy_change/") for row in rows for name in row)


def test_a_stopped_run_goes_on_with_the_same_entropy_changes(policy, tmp_path):
    config = config_for(measure_entropy_change_every=1)
    rows, first, second = [], [], []
    trainer_for(copy.deepcopy(policy), config, tmp_path / "whole", rows).train()
    with pytest.raises(Stopped):
        trainer_for(copy.deepcopy(policy), config, tmp_path / "cut", first, stop=lambda: len(first) == 3).train()
    trainer = trainer_for(copy.deepcopy(policy), config, tmp_path / "cut", second)
    assert trainer.resume() == 3
    trainer.train()
    assert without_times(rows) == without_times(first + second)
    assert SAME in rows[3]
