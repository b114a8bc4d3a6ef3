import itertools
import math

import numpy as np
import pandas as pd
import pytest

from entropy_mechanism.evaluation.metrics import (
    SCORE_COLUMNS,
    graded_samples,
    majority_at_k,
    parse_protocol,
    pass_at_k,
    problem_scores,
    scores,
)


def grades_of(correct_PN, answers_PN=None) -> pd.DataFrame:
    rows = [
        {
            "problem_id": f"p{p}",
            "sample": n,
            "correct": bool(right),
            "outcome": "correct" if right else "wrong",
        }
        for p, samples in enumerate(correct_PN)
        for n, right in enumerate(samples)
    ]
    frame = pd.DataFrame(rows)
    return frame if answers_PN is None else frame.assign(answer=list(itertools.chain.from_iterable(answers_PN)))


def share_correct(share: float, problems: int, samples: int) -> pd.DataFrame:
    flat = np.arange(problems * samples) < round(share * problems * samples)
    return grades_of(flat.reshape(problems, samples))


@pytest.mark.parametrize(("samples", "k"), [(n, k) for n in range(1, 8) for k in range(1, n + 1)])
def test_pass_at_k_equals_enumeration_of_all_subsets(samples, k):
    correct_PN = np.array([[n < right for n in range(samples)] for right in range(samples + 1)])
    expected = [np.mean([any(subset) for subset in itertools.combinations(row, k)]) for row in correct_PN]
    assert pass_at_k(correct_PN, k) == pytest.approx(expected)


def test_pass_at_k_survives_large_numbers():
    correct_PN = np.arange(1024)[None, :] < 3
    expected = 1 - math.comb(1021, 256) / math.comb(1024, 256)
    assert pass_at_k(correct_PN, 256)[0] == pytest.approx(expected)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_and_majority_need_enough_samples(k):
    correct = np.ones((2, 4), dtype=bool)
    with pytest.raises(ValueError, match="number of samples per problem, 4"):
        pass_at_k(correct, k)
    with pytest.raises(ValueError, match="number of samples per problem, 4"):
        majority_at_k(correct, np.full((2, 4), "1", dtype=object), k)


def test_majority_equals_a_written_out_vote_on_every_combination_of_answers():
    for answers in itertools.product(["1", "2", "3", None], repeat=4):
        correct = np.array([[answer == "2" for answer in answers]])
        given = [answer for answer in answers if answer is not None]
        # the vote by hand: the answer x such that none has more votes and none with as many came earlier
        winners = [
            x
            for x in set(given)
            if all(
                given.count(x) > given.count(y)
                or (given.count(x) == given.count(y) and given.index(x) <= given.index(y))
                for y in set(given)
            )
        ]
        result = majority_at_k(correct, np.array([answers], dtype=object), 4)
        assert result[0] == float(winners == ["2"]), answers


def test_majority_of_one_is_the_sample_itself():
    correct = np.array([[True, False, True], [False, False, False]])
    answers = np.array([["1", "2", "1"], [None, "4", "5"]], dtype=object)
    assert majority_at_k(correct, answers, 1) == pytest.approx([2 / 3, 0])


def test_majority_averages_over_consecutive_groups_and_drops_the_remainder():
    answers = np.array([["1", "2", "2", "1", "1", "2", "2"]], dtype=object)
    result = majority_at_k(answers == "1", answers, 3)
    # groups (1 2 2) and (1 1 2); the last sample belongs to none
    assert result[0] == pytest.approx(0.5)


def test_majority_winner_is_as_right_as_the_first_sample_that_gave_it():
    answers = np.array([["0.5", "0.5", "7"]], dtype=object)
    assert majority_at_k(np.array([[True, False, False]]), answers, 3)[0] == 1
    assert majority_at_k(np.array([[False, True, False]]), answers, 3)[0] == 0


def test_row_order_of_the_grades_does_not_matter():
    answers = [["1", "1", "2", "2"], ["3", "4", None, "4"]]
    grades = grades_of([[1, 1, 0, 0], [0, 1, 0, 1]], answers)
    protocols = {"set": ["avg@4", "pass@2", "maj@4"]}
    for other in (grades.iloc[::-1], grades.sample(frac=1, random_state=3)):
        pd.testing.assert_frame_equal(
            scores({"set": grades}, protocols, seed=0), scores({"set": other}, protocols, seed=0)
        )
    by_protocol = scores({"set": grades}, protocols, seed=0).iloc[:3].set_index("protocol")["score"]
    # p0: the tie of 1 and 2 goes to 1, which is right; p1: 4 wins, which is right; C(2,2)/C(4,2) = 1/6 each
    assert by_protocol.to_dict() == pytest.approx({"avg@4": 0.5, "pass@2": 5 / 6, "maj@4": 1.0})


@pytest.mark.parametrize("text", ["greedy@1", "avg", "avg@0", "pass@", "best@4", "avg@4 ", "avg@1.5"])
def test_unknown_protocols_are_refused(text):
    with pytest.raises(ValueError, match="allowed are greedy"):
        parse_protocol(text)


def test_protocols_check_the_number_of_samples_and_the_answers():
    graded = graded_samples(grades_of([[1, 0], [0, 1]]))
    for protocol, message in (("greedy", "exactly 1"), ("avg@4", "exactly 4"), ("maj@2", "column answer")):
        with pytest.raises(ValueError, match=message):
            problem_scores(graded, protocol)
    assert problem_scores(graded_samples(grades_of([[1], [0]])), "greedy") == pytest.approx([1, 0])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda g: g.iloc[:0], "no rows"),
        (lambda g: g.drop(columns="sample"), "missing sample"),
        (lambda g: g.assign(correct=g["correct"].astype(float)), "true or false"),
        (lambda g: g.assign(correct=g["correct"].astype("boolean").mask(g["sample"] == 1)), "true or false"),
        (lambda g: pd.concat([g, g.iloc[:1]]), "'p0' has sample 0 twice"),
        (lambda g: g.iloc[:-1], "2 for 'p0' and 1 for 'p1'"),
    ],
)
def test_incomplete_grades_are_refused_with_the_benchmarks_name(spoil, message):
    with pytest.raises(ValueError, match=message) as error:
        scores({"AIME": spoil(grades_of([[1, 0], [0, 1]]))}, {"AIME": "avg@2"}, seed=0)
    assert str(error.value).startswith("AIME: ")


# problems and samples per problem of each benchmark, and rows of Table 2 of arXiv 2505.22617 in percent,
# the last number of each being the average as printed
SIZES = {
    "AIME24": (30, 32),
    "AIME25": (30, 32),
    "AMC": (83, 32),
    "MATH-500": (500, 1),
    "OMNI-MATH": (2821, 1),
    "OlympiadBench": (675, 1),
    "Minerva": (272, 1),
}
TABLE2 = {
    "7B GRPO": (21.2, 9.6, 58.7, 78.8, 27.9, 40.7, 36.7, 38.6),
    "7B Clip-higher": (18.1, 11.5, 56.6, 79.2, 29.8, 43.3, 40.4, 38.8),
    "7B Clip-Cov": (22.1, 15.8, 58.2, 80.4, 30.5, 44.1, 41.1, 40.4),
    "7B KL-Cov": (22.6, 12.9, 61.4, 80.8, 29.1, 42.6, 38.2, 40.6),
    "32B GRPO": (21.8, 16.2, 69.7, 84.2, 35.2, 43.6, 45.5, 45.8),
    "32B Clip-higher": (35.6, 22.3, 69.5, 77.2, 35.1, 42.5, 43.0, 47.2),
    "32B Clip-Cov": (32.3, 22.7, 67.2, 87.0, 42.0, 57.2, 46.0, 50.3),
    "32B KL-Cov": (36.8, 30.8, 74.5, 84.6, 39.1, 49.0, 46.3, 52.2),
}


@pytest.mark.parametrize("row", TABLE2)
def test_pooled_average_reproduces_table_2(row):
    *columns, printed = TABLE2[row]
    grades = {
        name: share_correct(percent / 100, *SIZES[name]) for name, percent in zip(SIZES, columns, strict=True)
    }
    protocols = {name: "avg@32" if samples == 32 else "greedy" for name, (_, samples) in SIZES.items()}
    frame = scores(grades, protocols, seed=0, resamples=20).set_index("benchmark")
    assert frame.loc["pooled", ["problems", "samples"]].tolist() == [4411, 8844]
    assert frame.loc["pooled", "protocol"] == "mixed"
    # the columns are printed with one digit, so the average may miss by a further 0.01
    assert 100 * frame.loc["pooled", "score"] == pytest.approx(printed, abs=0.11)
    assert 100 * frame.loc["macro", "score"] == pytest.approx(np.mean(columns), abs=0.06)


def test_scores_have_one_row_per_benchmark_and_protocol_and_two_averages():
    grades = {"easy": share_correct(1.0, 4, 2), "hard": share_correct(0.25, 8, 2)}
    protocols = {"easy": ["avg@2", "pass@2"], "hard": "avg@2"}
    frame = scores(grades, protocols, seed=0)
    assert list(frame.columns) == SCORE_COLUMNS
    assert frame[["benchmark", "protocol"]].to_numpy().tolist() == [
        ["easy", "avg@2"],
        ["easy", "pass@2"],
        ["hard", "avg@2"],
        ["pooled", "avg@2"],
        ["macro", "avg@2"],
    ]
    rows = frame.drop(index=1).set_index("benchmark")
    assert rows["score"].to_dict() == pytest.approx({"easy": 1, "hard": 0.25, "pooled": 0.5, "macro": 0.625})
    assert rows["samples"].to_dict() == {"easy": 8, "hard": 16, "pooled": 24, "macro": 24}
    assert ((frame["low"] <= frame["score"]) & (frame["score"] <= frame["high"])).all()


def test_the_first_mean_protocol_of_a_benchmark_enters_the_averages():
    grades = grades_of([[1], [0]])
    assert scores({"a": grades}, {"a": "pass@1"}, seed=0)["benchmark"].tolist() == ["a"]
    greedy = grades_of([[1], [1], [0], [0]]).assign(decoding="greedy")
    sampled = grades_of([[1, 1], [1, 1], [1, 1], [0, 0]]).assign(decoding="sampled")
    both = pd.concat([greedy, sampled])
    for protocols, expected in ((["greedy", "avg@2"], 0.5), (["avg@2", "greedy"], 0.75)):
        rows = scores({"a": both}, {"a": protocols}, seed=0).set_index(["benchmark", "protocol"])["score"]
        assert rows["a", "greedy"] == 0.5
        assert rows["a", "avg@2"] == 0.75
        assert rows["pooled", protocols[0]] == rows["macro", protocols[0]] == expected


def test_a_benchmark_without_a_protocol_is_refused():
    grades = grades_of([[1], [0]])
    with pytest.raises(ValueError, match="a: no protocol given"):
        scores({"a": grades}, {"b": "greedy"}, seed=0)


def test_interval_is_over_problems_not_over_samples():
    # every problem is all right or all wrong: 64 samples tell no more than one
    solved = np.arange(50) < 20
    many = scores({"set": grades_of(np.repeat(solved[:, None], 64, axis=1))}, {"set": "avg@64"}, seed=0)
    one = scores({"set": grades_of(solved[:, None])}, {"set": "greedy"}, seed=0)
    width = many.loc[0, "high"] - many.loc[0, "low"]
    assert width == pytest.approx(one.loc[0, "high"] - one.loc[0, "low"])
    assert width == pytest.approx(2 * 1.96 * math.sqrt(0.4 * 0.6 / 50), rel=0.15)


def test_intervals_cover_the_true_score_about_as_often_as_they_say():
    generator = np.random.default_rng(5)
    hits = np.zeros(3)
    for trial in range(300):
        # problem difficulty is uniform on [0, 1] in one set and on [0, 0.5] in the other
        wide = generator.random((100, 4)) < generator.uniform(0, 1, (100, 1))
        low = generator.random((60, 1)) < generator.uniform(0, 0.5, (60, 1))
        grades = {"wide": grades_of(wide), "low": grades_of(low)}
        frame = scores(grades, {"wide": "avg@4", "low": "greedy"}, seed=trial, resamples=400)
        rows = frame.set_index("benchmark")
        truth = {"wide": 0.5, "pooled": (400 * 0.5 + 60 * 0.25) / 460, "macro": 0.375}
        hits += [rows.loc[name, "low"] <= value <= rows.loc[name, "high"] for name, value in truth.items()]
    # the standard error of a share of 0.95 over 300 trials is 0.013
    assert np.all((hits / 300 >= 0.90) & (hits / 300 <= 0.985)), hits / 300


def test_adding_a_benchmark_changes_no_other_interval_and_seeds_repeat():
    grades = {"a": share_correct(0.4, 50, 1), "b": share_correct(0.7, 50, 1)}
    protocols = {"a": "greedy", "b": "greedy"}
    both = scores(grades, protocols, seed=0)
    pd.testing.assert_frame_equal(both, scores(grades, protocols, seed=0))
    alone = scores({"b": grades["b"]}, protocols, seed=0)
    assert alone.loc[0, ["low", "high"]].tolist() == both.loc[1, ["low", "high"]].tolist()
    # independent streams: were they shared, the macro average would be as uncertain as its parts
    width = both["high"] - both["low"]
    assert width.iloc[-1] < 0.85 * width.iloc[:2].min()
