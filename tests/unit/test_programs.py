"""The generated programming task: problems, splits, teacher, and a nano model rewarded by running programs."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_mechanism.config import ArithmeticSet, ProgramSet, Teacher
from entropy_mechanism.data import programs
from entropy_mechanism.data.arithmetic import SHARES, split_of
from entropy_mechanism.data.problems import Problem, from_frame, to_frame
from entropy_mechanism.models.tiny import END, build_tokenizer
from entropy_mechanism.rewards.code import CodeGrader, read_tests
from entropy_mechanism.rewards.sandbox import SandboxError

PYTHON = {"add": "x = x + {}", "minus": "x = x - {}", "times": "x = x * {}", "modulo": "x = x % {}"}
steps = st.tuples(st.sampled_from(list(PYTHON)), st.integers(2, 9))
problems = st.lists(steps, min_size=1, max_size=5).map(
    lambda s: ", ".join(f"{name} {operand}" for name, operand in s)
)


def make_set(split="train", operations=(2, 3), number=300, seed=0):
    return ProgramSet(kind="programs", split=split, operations=operations, problems=number, seed=seed)


def make_teacher(**changes):
    table = {"unreliable_share": 0.4, "unreliable": (0.0, 0.2), "reliable": (0.6, 0.95), "distractors": (0.5, 0.3)}
    return programs.UnreliableProgrammer(Teacher(**(table | changes)))


def run(problem, x):
    for step in problem.split(", "):
        name, operand = step.split()
        names = {"x": x}
        exec(PYTHON[name].format(operand), names)
        x = names["x"]
    return x


@given(problems, st.integers(-200, 200))
def test_the_value_of_a_problem_is_that_of_its_operations_in_python(problem, x):
    assert programs.value(problem, x) == run(problem, x)


@given(problems)
def test_tests_are_different_numbers_with_the_values_python_gives(problem):
    tests = read_tests(programs.tests(problem))
    assert (tests.kind, tests.function) == ("call", "f")
    numbers = [arguments[0] for arguments in tests.inputs]
    assert len(set(numbers)) == programs.TESTS
    assert tests.outputs == [run(problem, x) for x in numbers]
    assert programs.tests(problem) == programs.tests(problem)


@settings(max_examples=30, deadline=None)
@given(problems, st.integers(0, 2**32))
def test_a_reliable_programmer_writes_programs_that_do_what_is_asked(problem, seed):
    teacher = make_teacher(unreliable_share=0, reliable=(1, 1))
    names = {}
    exec(teacher.write_solution(problem, np.random.default_rng(seed)), names)
    assert [names["f"](x) for x in range(-20, 20)] == [run(problem, x) for x in range(-20, 20)]
    assert teacher.reference(problem)[0] == pytest.approx(1)


def test_both_spellings_of_an_operation_are_written():
    teacher, rng = make_teacher(unreliable_share=0, reliable=(1, 1)), np.random.default_rng(0)
    for problem, spellings in (("add 3", 2), ("minus 3", 2), ("times 3", 2), ("modulo 3", 2), ("add 3, add 4", 4)):
        assert len({teacher.write_solution(problem, rng) for _ in range(100)}) == spellings


def test_statements_are_right_as_often_as_the_reference_says():
    teacher, rng, draws = make_teacher(), np.random.default_rng(1), 4000
    right = 0
    for _ in range(draws):
        lines = teacher.write_solution("times 4, add 3", rng).split("\n")
        right += lines[1] in (" x=x*4", " x=4*x") and lines[2] in (" x=x+3", " x=3+x")
    chance, entropy = teacher.reference("times 4, add 3")
    assert right / draws == pytest.approx(chance, abs=4 * 0.5 / draws**0.5)
    rows = [teacher.probabilities[4, 16 + 2], teacher.probabilities[2, 1]]  # at the beginning; after times
    assert entropy == pytest.approx(-sum(p * np.log(p) for row in rows for p in row if p > 0))


def test_a_share_of_the_table_is_unreliable_and_the_rest_goes_to_the_declared_distractors():
    table = make_teacher().probabilities.reshape(5, 32, 32, 2)
    np.testing.assert_allclose(table.sum(axis=(-1, -2)), 1)
    np.testing.assert_array_equal(table[..., 0], table[..., 1])
    right = table.sum(-1)[:, range(32), range(32)]
    assert (right < 0.2).sum() == 64  # 40 % of 160
    assert ((right < 0.2) | ((right >= 0.6) & (right <= 0.95))).all()
    wrong = np.sort(table.sum(-1), axis=-1)
    assert ((wrong > 0).sum(-1) <= 3).all()


def test_generated_problems_are_distinct_of_the_asked_split_and_lengths():
    made = programs.generate(make_set(number=301))
    texts = [problem.problem for problem in made]
    assert len(set(texts)) == len({problem.id for problem in made}) == 301
    assert {split_of(text) for text in texts} == {"train"}
    assert sorted(np.bincount([text.count(",") + 1 for text in texts])[2:]) == [150, 151]
    assert programs.generate(make_set()) == programs.generate(make_set())
    assert {p.problem for p in programs.generate(make_set(seed=1))} != {
        p.problem for p in programs.generate(make_set())
    }


def test_sets_of_different_splits_share_no_problem_even_when_exhausted():
    every = [f"{one}, {other}" for one in programs._STEPS for other in programs._STEPS]
    found = []
    for split in SHARES:
        existing = sum(split_of(text) == split for text in every)
        found += [problem.problem for problem in programs.generate(make_set(split, (2, 2), existing))]
    assert sorted(found) == sorted(every)
    with pytest.raises(ValueError, match=r"only \d+ exist in split 'test' with 1 to 1 operations"):
        programs.generate(make_set("test", (1, 1), 500))


def test_sets_overlap_where_kind_split_and_ranges_meet():
    numbers = ArithmeticSet(kind="arithmetic", split="train", operands=(2, 3), problems=5)
    assert make_set().overlaps(make_set(operations=(3, 4)))
    assert not make_set().overlaps(make_set(operations=(4, 5)))
    assert not make_set().overlaps(make_set("test"))
    assert not make_set().overlaps(numbers)
    assert not numbers.overlaps(make_set())


@pytest.mark.parametrize("text", ["", "add", "add 1", "add 3,times 4", "add 3, halve 2", "add 3, "])
def test_text_that_is_no_list_of_operations_is_refused(text):
    with pytest.raises(ValueError, match="not a list of operations"):
        programs.parse(text)


# --- the record ---------------------------------------------------------------------------------------------


def test_tests_and_repeats_survive_the_table_and_old_files_still_read(tmp_path):
    made = [Problem("a:1", "a", "p", "", {"x": 1}, '{"kind": "call"}', 3), Problem("a:2", "a", "q", "7")]
    frame = to_frame(made)
    assert list(frame.columns) == ["id", "source", "problem", "answer", "tests", "repeats", "metadata"]
    frame.to_parquet(tmp_path / "x.parquet", index=False)
    assert from_frame(pd.read_parquet(tmp_path / "x.parquet")) == made
    old = frame.drop(columns=["tests", "repeats"])
    assert from_frame(old)[1] == made[1]
    assert (from_frame(old)[0].tests, from_frame(old)[0].repeats) == ("", 1)


# --- the tokenizer ------------------------------------------------------------------------------------------


def test_a_statement_and_a_step_are_one_token_each_and_all_text_survives():
    tokenizer = build_tokenizer("programs")
    problem = "add 3, modulo 4, minus 9"
    solution = make_teacher().write_solution(problem, np.random.default_rng(0))
    assert len(tokenizer(problem)["input_ids"]) == 5
    assert len(tokenizer(solution + END)["input_ids"]) == 1 + 3 + 1 + 1
    for text in (problem, solution, "x=12+3 and äöü"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


# --- learning -----------------------------------------------------------------------------------------------

EXPERIMENT = """
title: a nano model learns to program
data:
  train: {kind: programs, split: train, operations: [2, 2], problems: 200}
  validation: {kind: programs, split: validation, operations: [2, 2], problems: 20}
validation: validation
models:
  coder:
    kind: tiny
    layers: 1
    width: 32
    heads: 1
    kv_heads: 1
    warmup: {task: programs, steps: 250, batch: 32, operations: [2, 2], problems: 500, learning_rate: 0.01}
methods:
  grpo: {objective: {name: ppo-clip}}
training:
  {steps: 5, prompts: 16, samples: 4, updates: 2, learning_rate: 2.0e-3, max_response: 10, validate_every: 5}
runs:
  - {models: [coder], train_sets: [train], methods: [grpo], seeds: [1]}
evaluation: {max_response: 10, benchmarks: {held: {data: validation, protocols: [greedy]}}}
"""
RUN = "coder--train--grpo--s1"


def test_training_rewards_programs_by_running_them(tmp_path):
    """Through the stages; with 80 steps and a width of 64, validation accuracy rises from 0.18 to 0.65."""
    from entropy_mechanism.stages.make_model import make_model
    from entropy_mechanism.stages.prepare import prepare
    from entropy_mechanism.stages.resolve import resolve
    from entropy_mechanism.stages.train import train

    try:
        CodeGrader().grade_all(["pass"], [programs.tests("add 3")])
    except SandboxError as error:
        pytest.skip(str(error))
    experiment, results = tmp_path / "code.yaml", tmp_path / "results"
    experiment.write_text(EXPERIMENT)
    for name in ("train", "validation"):
        prepare(experiment, name, [], tmp_path / f"{name}.parquet", tmp_path / f"{name}.json", results)
    make_model(experiment, "coder", tmp_path / "model/manifest.json", results)
    resolve(experiment, RUN, tmp_path / "run.yaml", results)
    train(
        tmp_path / "run.yaml",
        tmp_path / "model/manifest.json",
        tmp_path / "train.parquet",
        tmp_path / "validation.parquet",
        tmp_path / "store",
        tmp_path / "metrics.parquet",
        tmp_path / "out/manifest.json",
        results,
    )
    metrics = pd.read_parquet(tmp_path / "metrics.parquet")
    assert len(metrics) == 6
    assert metrics["outcome/correct"].gt(0).all()
    assert metrics["outcome/wrong"].gt(0).all()
    assert metrics["reward/mean"].iloc[-1] > metrics["reward/mean"].iloc[0]
    assert json.loads((tmp_path / "train.json").read_text())["kept"] == 200
