import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_mechanism.config import ArithmeticSet, Teacher
from entropy_mechanism.data.arithmetic import (
    SHARES,
    UnreliableTeacher,
    answer,
    generate,
    parse,
    split_of,
)
from entropy_mechanism.data.problems import Problem, from_frame, to_frame


def make_set(split="train", operands=(3, 5), problems=300, seed=0):
    return ArithmeticSet(kind="arithmetic", split=split, operands=operands, problems=problems, seed=seed)


def make_teacher(**changes):
    values = {
        "unreliable_share": 0.4,
        "unreliable": (0.0, 0.2),
        "reliable": (0.6, 0.95),
        "distractors": (0.5, 0.3, 0.2),
    }
    return UnreliableTeacher(Teacher(**(values | changes)))


chains = st.builds(
    lambda first, steps: str(first) + "".join(o + str(d) for o, d in steps),
    st.integers(0, 9),
    st.lists(st.tuples(st.sampled_from("+-"), st.integers(0, 9)), min_size=1, max_size=8),
)


@settings(deadline=None)
@given(chains)
def test_answer_is_the_value_of_the_expression_modulo_ten(text):
    assert answer(text) == eval(text) % 10


@pytest.mark.parametrize("text", ["", "7+", "+7", "7*5", "17+5", "7+5 ", "7+²"])
def test_text_that_is_no_chain_is_refused(text):
    with pytest.raises(ValueError, match="not a chain"):
        parse(text)


def test_generated_problems_are_distinct_of_the_asked_split_and_lengths_and_rightly_answered():
    problems = generate(make_set(problems=301))
    texts = [p.problem for p in problems]
    assert len(set(texts)) == len({p.id for p in problems}) == 301
    assert {split_of(text) for text in texts} == {"train"}
    counts = np.bincount([sum(c in "+-" for c in text) + 1 for text in texts])
    assert sorted(counts[counts > 0]) == [100, 100, 101]
    assert set(np.flatnonzero(counts)) == {3, 4, 5}
    assert all(p.answer == str(eval(p.problem) % 10) for p in problems)
    assert all(p.metadata["operands"] == p.problem.count("+") + p.problem.count("-") + 1 for p in problems)


def test_equal_settings_give_equal_problems_and_another_seed_gives_others():
    assert generate(make_set()) == generate(make_set())
    assert {p.problem for p in generate(make_set())} != {p.problem for p in generate(make_set(seed=1))}


def test_sets_of_different_splits_share_no_problem_even_when_exhausted():
    every = {f"{a}{o}{b}" for a in range(10) for o in "+-" for b in range(10)}
    found = []
    for split in SHARES:
        existing = sum(split_of(text) == split for text in every)
        found += [p.problem for p in generate(make_set(split, (2, 2), existing))]
    assert len(found) == len(set(found)) == len(every)
    assert set(found) == every


def test_shares_of_the_splits_are_as_declared():
    texts = [
        f"{a}{o}{b}{q}{c}" for a in range(10) for o in "+-" for b in range(10) for q in "+-" for c in range(10)
    ]
    assert sum(SHARES.values()) == pytest.approx(1)
    for split, share in SHARES.items():
        # Four standard deviations of a binomial share of 4,000.
        tolerance = 4 * np.sqrt(share * (1 - share) / len(texts))
        assert np.mean([split_of(text) == split for text in texts]) == pytest.approx(share, abs=tolerance)


@pytest.mark.parametrize(
    ("text", "split"), [("0+0", "train"), ("7+5-3", "train"), ("2+9", "validation"), ("8-1-1", "test")]
)
def test_the_split_of_a_text_never_changes(text, split):
    """Recorded results would mix training and test problems if the partition moved."""
    assert split_of(text) == split


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("train", (3, 5)), ("test", (3, 5)), True),
        (("test", (2, 3)), ("test", (4, 5)), True),
        (("test", (2, 4)), ("test", (4, 5)), False),
        (("test", (6, 7)), ("test", (2, 6)), False),
    ],
)
def test_sets_overlap_where_split_and_operand_ranges_meet(first, second, expected):
    assert make_set(*first).overlaps(make_set(*second)) is not expected
    assert make_set(*second).overlaps(make_set(*first)) is not expected


def test_short_chains_that_do_not_exist_are_replaced_by_longer_ones():
    problems = generate(make_set("validation", (2, 3), 200))
    two = sum(p.metadata["operands"] == 2 for p in problems)
    every = [f"{a}{o}{b}" for a in range(10) for o in "+-" for b in range(10)]
    assert two == sum(split_of(text) == "validation" for text in every)
    assert len(problems) == 200


def test_asking_for_more_problems_than_exist_says_how_many_there_are():
    with pytest.raises(ValueError, match=r"500 .* only \d+ exist in split 'test' with 2 to 2 operands"):
        generate(make_set("test", (2, 2), 500))


def test_teacher_table_has_one_reliability_per_entry_and_the_declared_distractors():
    teacher = make_teacher()
    table = teacher.probabilities
    np.testing.assert_allclose(table.sum(axis=-1), 1)
    low = 0
    for a in range(10):
        for o, sign in enumerate((1, -1)):
            for b in range(10):
                row = table[a, o, b]
                right = row[(a + sign * b) % 10]
                low += right < 0.2
                assert right < 0.2 or 0.6 <= right <= 0.95
                wrong = sorted(np.delete(row, (a + sign * b) % 10))[::-1]
                np.testing.assert_allclose(wrong[:3], (1 - right) * np.array([0.5, 0.3, 0.2]))
                assert not any(wrong[3:])
    assert low == 80


def test_teacher_seed_decides_the_table():
    np.testing.assert_array_equal(make_teacher(seed=3).probabilities, make_teacher(seed=3).probabilities)
    assert (make_teacher(seed=3).probabilities != make_teacher(seed=4).probabilities).any()


@settings(max_examples=50, deadline=None)
@given(chains)
def test_a_reliable_teacher_writes_the_running_value_and_the_boxed_answer(text):
    teacher = make_teacher(unreliable_share=0, reliable=(1, 1))
    expected, prefix = f"={text[0]}", text[0]
    for i in range(1, len(text), 2):
        prefix += text[i : i + 2]
        expected += f"{text[i : i + 2]}={eval(prefix) % 10}"
    solution = teacher.write_solution(text, np.random.default_rng(0))
    assert solution == expected + f"\\boxed{{{eval(text) % 10}}}"


def test_written_results_occur_as_often_as_the_table_says():
    teacher, rng, draws = make_teacher(), np.random.default_rng(1), 4000
    results = np.bincount([int(teacher.write_solution("3-8", rng)[-2]) for _ in range(draws)], minlength=10)
    np.testing.assert_allclose(results / draws, teacher.probabilities[3, 1, 8], atol=4 * 0.5 / draws**0.5)


def test_outcome_and_entropy_are_those_of_enumerated_solutions():
    teacher = make_teacher()
    table = teacher.probabilities
    outcome, entropy = np.zeros(10), 0.0
    for x in range(10):
        for y in range(10):
            p = table[4, 0, 9, x] * table[x, 1, 2, y]
            outcome[y] += p
            entropy -= p * np.log(p) if p > 0 else 0
    distribution, nats = teacher.outcome("4+9-2")
    np.testing.assert_allclose(distribution, outcome)
    assert nats == pytest.approx(entropy)


def test_problems_survive_the_table(tmp_path):
    problems = [
        Problem("a:1", "a", "7+5", "2", metadata={"operands": 2, "subject": "π"}),
        Problem("a:2", "a", "1\n2", "\\frac{1}{2}"),
        Problem("a:3", "a", "Print 1.", "", tests='{"kind": "pytest", "code": "1"}', repeats=32),
    ]
    frame = to_frame(problems)
    assert json.loads(frame["metadata"][0]) == {"operands": 2, "subject": "π"}
    frame.to_parquet(tmp_path / "problems.parquet", index=False)
    assert from_frame(pd.read_parquet(tmp_path / "problems.parquet")) == problems
    assert from_frame(to_frame([])) == []


def test_a_missing_column_a_repeated_id_and_broken_metadata_are_named():
    frame = to_frame(generate(make_set(problems=3)))
    with pytest.raises(ValueError, match=r"data/x\.parquet has no column answer; found id, source"):
        from_frame(frame.drop(columns="answer"), "data/x.parquet")
    with pytest.raises(ValueError, match="1 repeated ids, the first is '7'"):
        to_frame([Problem("7", "a", "1+1", "2"), Problem("7", "a", "1+2", "3")])
    with pytest.raises(ValueError, match=f"metadata of problem {frame['id'][0]}".replace("+", r"\+")):
        from_frame(frame.assign(metadata=["[1]", "{}", "{}"]))
