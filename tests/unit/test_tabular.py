"""The paper's first-order formulas on tables of logits, against numbers found in other ways."""

import itertools
import json

import numpy as np
import pytest
import torch

from entropy_mechanism.analysis.tabular import (
    COUNTEREXAMPLE_COLUMNS,
    TABULAR_COLUMNS,
    counterexample_paths,
    counterexamples,
    entropies,
    entropy_after,
    error_slopes,
    open_states,
    random_problem,
    softmax,
    tabular,
    tabular_left_out,
)


@pytest.fixture(scope="module")
def frames():
    return {"bandit": tabular(instances=3), "mdp": tabular_left_out(instances=3)}


@pytest.fixture(scope="module")
def slopes(frames):
    return {name: error_slopes(frame).set_index(["check", "states", "form"]) for name, frame in frames.items()}


FIRST_ORDER = [
    ("bandit", check, "held", "printed") for check in ("lemma-1", "proposition-1", "theorem-1", "theorem-2")
]
FIRST_ORDER += [("mdp", "lemma-1", "held", "printed"), ("mdp", "lemma-1", "followed", "complete")]
FIRST_ORDER += [("mdp", check, "held", "complete") for check in ("theorem-1", "theorem-2")]


@pytest.mark.parametrize("which", FIRST_ORDER, ids=" ".join)
def test_the_error_of_a_first_order_formula_falls_with_the_square_of_the_step_size(slopes, which):
    found = slopes[which[0]].loc[which[1:], ["slope", "lowest", "highest"]]
    assert found.tolist() == pytest.approx([2, 2, 2], abs=0.1)


@pytest.mark.parametrize("which", [("lemma-1", "followed", "printed"), ("theorem-1", "held", "printed")])
def test_what_a_formula_leaves_out_is_of_first_order(slopes, which):
    assert slopes["mdp"].loc[which, "slope"] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("seed", range(3))
def test_proposition_1_is_exact_for_one_step_of_the_exact_gradient(seed):
    problem, logits_SA = random_problem("bandit", seed)
    policy_SA = softmax(logits_SA)
    expected = policy_SA * problem.advantages(policy_SA)
    assert len(logits_SA) * problem.gradient(logits_SA) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_every_formula_is_checked_at_every_step_size_in_float64(frames):
    for frame in frames.values():
        assert list(frame) == TABULAR_COLUMNS
        counts = frame.groupby(["check", "states", "form", "instance"])["step_size"].nunique()
        assert set(counts) == {10}
        assert frame["exact"].dtype == np.float64
        of_entropy = frame[frame["check"] != "proposition-1"]
        errors = (of_entropy["exact"] - of_entropy["predicted"]).abs()
        assert of_entropy["error"].tolist() == errors.tolist()
    assert set(frames["bandit"]["check"]) == {"lemma-1", "proposition-1", "theorem-1", "theorem-2"}


def sampled_objective(problem, policy_SA, horizon=400):
    """Expected discounted return and entropy by following the distribution over states, step by step."""
    state_S, total, visits_S = problem.start_S, 0.0, np.zeros_like(problem.start_S)
    for time in range(horizon):
        weight = problem.discount**time
        total += weight * (state_S[:, None] * policy_SA * problem.reward_SA).sum()
        visits_S = visits_S + weight * state_S
        state_S = np.einsum("s,sa,sat->t", state_S, policy_SA, problem.transition_SAS)
    return total, visits_S


@pytest.mark.parametrize("kind", ["bandit", "mdp"])
def test_objective_visits_and_gradient_are_those_found_by_other_means(kind):
    problem, logits_SA = random_problem(kind, 5)
    policy_SA = softmax(logits_SA)
    total, visits_S = sampled_objective(problem, policy_SA)
    assert problem.objective(logits_SA) == pytest.approx(total)
    assert problem.visits(policy_SA) == pytest.approx((1 - problem.discount) * visits_S)
    assert problem.visits(policy_SA).sum() == pytest.approx(1)
    z = torch.tensor(logits_SA, requires_grad=True)
    policy = z.softmax(1)
    step = torch.einsum("sa,sat->st", policy, torch.tensor(problem.transition_SAS))
    identity = torch.eye(len(logits_SA), dtype=torch.float64)
    gain = (policy * torch.tensor(problem.reward_SA)).sum(1)
    value = torch.linalg.solve(identity - problem.discount * step, gain)
    (torch.tensor(problem.start_S) @ value).backward()
    assert problem.gradient(logits_SA) == pytest.approx(z.grad.numpy(), abs=1e-12)


def test_the_natural_gradient_is_the_steepest_ascent_in_kullback_leibler_divergence():
    problem, logits_SA = random_problem("mdp", 1)
    natural_SA, policy_SA = problem.natural_gradient(logits_SA), softmax(logits_SA)
    visits_S = problem.visits(policy_SA)
    centred_SA = natural_SA - (policy_SA * natural_SA).sum(1, keepdims=True)
    fisher_times_step_SA = visits_S[:, None] * policy_SA * centred_SA
    assert fisher_times_step_SA == pytest.approx(problem.gradient(logits_SA), abs=1e-10)


def test_the_entropy_that_follows_leaves_out_the_state_itself():
    problem, logits_SA = random_problem("mdp", 2)
    policy_SA = softmax(logits_SA)
    follows_SA = entropy_after(problem, policy_SA)
    total = (problem.start_S * (entropies(logits_SA) + (policy_SA * follows_SA).sum(1))).sum()
    assert problem.entropy(logits_SA) == pytest.approx((1 - problem.discount) * total)
    alone, logits_SA = random_problem("bandit", 2)
    assert np.abs(entropy_after(alone, softmax(logits_SA))).max() == 0


def test_constructed_cases_begin_with_the_signs_they_are_for():
    frame = counterexamples()
    assert list(frame) == COUNTEREXAMPLE_COLUMNS
    assert frame["case"].is_unique
    first = frame.set_index("case")
    for case in ("rare and right", "anti-calibrated"):
        assert first.at[case, "covariance"] < -1e-3
        assert first.at[case, "entropy_change"] > 1e-3
    assert first.at["likely and right", "covariance"] > 0 > first.at["likely and right", "entropy_change"]
    assert first.at["two signs", "covariance"] < 0 < first.at["two signs", "covariance_theorem_2"]
    assert first.at["two signs", "entropy_change"] > 0
    assert first.at["even", "covariance"] == 0 > first.at["even", "entropy_change"]
    moving = first.loc["towards open states"]
    assert moving["covariance"] > 0 > moving["same_state_change"]
    assert moving["entropy_change"] > 0


def test_a_policy_that_unlearns_first_gains_and_then_loses_entropy():
    frame = counterexample_paths()
    for case, rows in frame.groupby("case"):
        assert rows["objective"].is_monotonic_increasing, case
        final = rows["entropy"].iloc[-1]
        assert final < rows["entropy"].iloc[0] or case == "towards open states"
        turned = (np.sign(rows["entropy_change"]).diff() != 0).sum() - 1
        assert turned == (case in {"rare and right", "anti-calibrated", "two signs", "towards open states"}), case


def test_the_change_of_a_constructed_case_is_that_of_the_policies_written_down():
    frame = counterexample_paths(updates=2)
    first, second = (frame[frame["case"] == "rare and right"].iloc[update] for update in (0, 1))
    p, after = (np.array(json.loads(row["probabilities"]))[0] for row in (first, second))
    change = (p * np.log(p)).sum() - (after * np.log(after)).sum()
    assert first["entropy_change"] == pytest.approx(change, abs=1e-4)
    advantage = np.array([0, 0, 0, 1]) - p[3]
    assert json.loads(first["advantages"])[0] == pytest.approx(advantage, abs=1e-6)
    weights = p * np.exp(0.2 * p * advantage)
    assert after == pytest.approx(weights / weights.sum(), abs=1e-5)
    covariance = (p * (np.log(p) - p @ np.log(p)) * (p * advantage - (p * p * advantage).sum())).sum()
    assert first["covariance"] == pytest.approx(covariance, abs=1e-5)
    assert first["predicted"] == pytest.approx(-0.2 * covariance, abs=1e-5)


def test_open_states_lead_where_they_say():
    problem, logits_SA = open_states()
    assert problem.transition_SAS.sum(2).tolist() == [[1] * 4] * 3
    advantage_SA = problem.advantages(softmax(logits_SA))
    assert np.abs(advantage_SA[1:]).max() < 1e-12
    assert all(advantage_SA[0, 0] > value for value in advantage_SA[0, 1:])
    for one, other in itertools.pairwise(advantage_SA[0, 1:]):
        assert one == pytest.approx(other)
