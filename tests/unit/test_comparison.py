"""Paired comparison of policies: by hand, by enumeration, and by how often its intervals and tests are right."""

import itertools

import numpy as np
import pandas as pd
import pytest

from entropy_mechanism.evaluation.comparison import COMPARISON_COLUMNS, compare
from entropy_mechanism.evaluation.metrics import scores


def graded(correct_PN, decoding="greedy"):
    rows = [
        {"problem_id": f"p{p:03d}", "decoding": decoding, "sample": n, "correct": bool(value)}
        for p, values in enumerate(np.atleast_2d(correct_PN))
        for n, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def column(values):
    return np.array(values)[:, None]


def test_a_difference_is_that_of_the_scores_in_every_row():
    draws = np.random.default_rng(1)
    policies = [
        {"one": graded(draws.random((20, 1)) < 0.6), "two": graded(draws.random((30, 4)) < 0.4, "sampled")}
        for _ in range(2)
    ]
    protocols = {"one": ["greedy"], "two": ["avg@4", "pass@2"]}
    found = compare(*policies, protocols, seed=1)
    assert list(found) == COMPARISON_COLUMNS
    ours, theirs = (scores(policy, protocols, seed=1).set_index(["benchmark", "protocol"]) for policy in policies)
    expected = (ours["score"] - theirs["score"]).to_numpy()
    assert found["difference"].to_numpy() == pytest.approx(expected)
    assert list(found["benchmark"]) == list(ours.index.get_level_values(0))
    assert ((found["low"] <= found["difference"]) & (found["difference"] <= found["high"])).all()


def test_the_p_value_is_that_of_all_ways_to_swap_the_policies_within_problems():
    ours, theirs = [1, 1, 1, 1, 0, 1, 0, 1], [0, 1, 0, 0, 0, 1, 1, 0]
    differences = np.array(ours) - np.array(theirs)
    swaps = [abs((differences * signs).mean()) for signs in itertools.product((1, -1), repeat=8)]
    expected = np.mean(np.array(swaps) >= abs(differences.mean()) - 1e-12)
    found = compare(
        {"b": graded(column(ours))}, {"b": graded(column(theirs))}, {"b": ["greedy"]}, 1, resamples=5000
    )
    assert found["p"].iloc[0] == pytest.approx(expected)


def test_equal_policies_differ_by_nothing_with_certainty():
    policy = {"b": graded(column([1, 0, 1, 1]))}
    row = compare(policy, policy, {"b": ["greedy"]}, 1).iloc[0]
    assert (row["difference"], row["low"], row["high"], row["p"]) == (0, 0, 0, 1)


def test_pairing_by_problem_is_sharper_than_two_intervals():
    """Of policies that agree on most problems the difference's interval excludes 0 while the scores' overlap."""
    theirs = np.array([1] * 40 + [0] * 60)
    ours = theirs.copy()
    ours[40:50] = 1
    policies = {"b": graded(column(ours))}, {"b": graded(column(theirs))}
    row = compare(*policies, {"b": ["greedy"]}, 1).iloc[0]
    assert row["low"] > 0
    assert row["p"] < 0.01
    intervals = [scores(policy, {"b": "greedy"}, 1).iloc[0] for policy in policies]
    assert intervals[0]["low"] < intervals[1]["high"]


def test_the_test_rejects_equal_policies_about_as_rarely_as_it_says():
    draws, rejected = np.random.default_rng(5), 0
    for trial in range(200):
        difficulty = draws.random(40)
        ours, theirs = ({"b": graded(column(draws.random(40) < difficulty))} for _ in range(2))
        rejected += compare(ours, theirs, {"b": ["greedy"]}, trial, resamples=400).iloc[0]["p"] <= 0.1
    assert rejected / 200 < 0.14  # 0.1, and two standard errors


def test_policies_that_answered_different_problems_are_not_compared():
    ours, theirs = graded(column([1, 0, 1])), graded(column([1, 0]))
    with pytest.raises(ValueError, match=r"b: the policies did not answer the same problems \(1 differ\)"):
        compare({"b": ours}, {"b": theirs}, {"b": ["greedy"]}, 1)
