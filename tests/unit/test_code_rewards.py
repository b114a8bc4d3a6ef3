"""Grading programs: finding them, reading their tests, comparing, remembering, and what the stage writes."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from program_tests import CORRECT, SUMS, calls, pytests, stdio

from entropy_mechanism.data.problems import Problem, to_frame
from entropy_mechanism.rewards import code
from entropy_mechanism.rewards.code import (
    CodeGrader,
    Verdict,
    extract_code,
    grade_program,
    read_tests,
    same_lines,
    same_value,
)
from entropy_mechanism.rewards.grading import Grader
from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rewards.sandbox import SandboxError
from entropy_mechanism.rl.collect import Question
from entropy_mechanism.stages.grade import grade_samples


def test_a_verdict_is_remembered_and_an_end_by_force_is_not(code_grader, monkeypatch):
    runs = []

    def counted(sandbox, program, tests, max_tests):
        runs.append(program)
        return grade_program(sandbox, program, tests, max_tests)

    monkeypatch.setattr(code, "grade_program", counted)
    tests = json.dumps({"kind": "call", "function": "f", "inputs": [[1]], "outputs": [2]})
    right, wrong, dies = "def f(x): return 2*x", "def f(x): return 0*x", "[0] * 10**12"
    first = code_grader.grade_all([right, wrong, dies, right], [tests] * 4)
    assert runs == [right, wrong, dies]
    assert [verdict.outcome for verdict in first] == [
        Outcome.CORRECT, Outcome.WRONG, Outcome.ERROR, Outcome.CORRECT
    ]  # fmt: skip
    assert code_grader.grade_all([right, wrong, dies], [tests] * 3) == first[:3]
    assert runs[3:] == [dies]
    other = json.dumps({"kind": "call", "function": "f", "inputs": [[1]], "outputs": [0]})
    assert [verdict.outcome for verdict in code_grader.grade_all([right, wrong], [other] * 2)] == [
        Outcome.WRONG, Outcome.CORRECT
    ]  # fmt: skip
    assert runs[4:] == [right, wrong]
    monkeypatch.setattr(code, "REMEMBERED", 1)
    code_grader.grade_all(["def f(x): return x + 1"], [tests])
    assert code_grader.grade_all([right], [tests]) == [CORRECT]
    assert runs[6:] == ["def f(x): return x + 1", right]


# --- finding the program --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1\n```\nBetter:\n```python\nx = 2\n```\nDone.", "x = 2\n"),
        ("```python\nx = 1\n```\nIt prints\n```\n1\n```", "x = 1\n"),
        ("```py\nx = 1\n```", "x = 1\n"),
        ("```Python3\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```bash\nls\n```", None),
        ("```python\nx = 1", None),
        ("```python\nx = 1\n```\n```python\nx = 2", "x = 1\n"),
        ("  ```python\n  x = 1\n  ```", "  x = 1\n"),
        ("```python\n```", None),
        ("lambda x: x+3", "lambda x: x+3"),
        ("I do not know.", None),
        ("", None),
        ("x = '''\n```python\n'''", None),
    ],
)
def test_the_program_is_the_last_closed_block_of_python_or_a_text_that_is_one(response, code):
    assert extract_code(response) == code


@given(st.text(max_size=80))
def test_any_response_is_read(text):
    code = extract_code(text)
    assert code is None or code.strip()


# --- reading tests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"kind": "other", "inputs": ["1"], "outputs": ["1"]}',
        stdio(["1"], []),
        stdio([], []),
        stdio([1], ["1"]),
        '{"kind": "call", "inputs": [[1]], "outputs": [1]}',
        '{"kind": "call", "function": "f", "inputs": [1], "outputs": [1]}',
        pytests("assert True"),
        pytests(7),
    ],
)
def test_tests_that_say_nothing_are_refused(text):
    with pytest.raises(ValueError, match="tests of a problem"):
        read_tests(text)


def test_a_form_of_tests_that_there_is_not_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"kind is 'stdin'; allowed: stdio, call, pytest"):
        read_tests('{"kind": "stdin", "inputs": ["1"], "outputs": ["1"]}')


# --- comparing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("1 2\n", "1 2", True),
        ("1  2 \n\n", "1 2\n", True),
        ("1\r\n2", "1\n2\n", True),
        ("1 2", "1\n2", False),
        ("12", "1 2", False),
        ("\n1", "1", False),
        ("", "", True),
        ("", "\n", True),
        ("1.0", "1", False),
    ],
)
def test_lines_are_the_same_when_their_words_are(printed, expected, same):
    assert same_lines(printed, expected) is same


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        (1, 1, True),
        (1, 2, False),
        (0.1 + 0.2, 0.3, True),
        (0.31, 0.3, False),
        (10**400, 0.5, False),
        (float("nan"), float("nan"), True),
        (10**16, 10**16 + 1, False),
        ("1", 1, False),
        (None, 0, False),
        ([1, [2.0]], [1, [2]], True),
        ([1], [1, 2], False),
        ({"a": 1.0}, {"a": 1}, True),
        ({"a": 1}, {"b": 1}, False),
        (True, 1, True),
    ],
)
def test_values_are_the_same_up_to_the_last_digits_of_numbers(value, expected, same):
    assert same_value(value, expected) is same


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print(sum(map(int, input().split())))", ""),
        ("import sys\na, b = sys.stdin.read().split()\nsys.stdout.write(str(int(a) + int(b)))", ""),
        ("import sys\ndef main():\n    print(sum(map(int, sys.stdin.buffer.readline().split())))\n"
         "if __name__ == '__main__':\n    main()", ""),
        ("import threading\ndef main(): print(sum(map(int, open(0).read().split())))\n"
         "threading.Thread(target=main).start()", ""),
        ("print(sum(map(int, input().split())))\nexit()", ""),
        ("print(sum(map(int, input().split())) if input else 0 or 0, end='')", ""),
        ("a, b = map(int, input().split())\nprint(a + b if a < 5 else 0)", "wrong output in test 3"),
        ("print(3)", "wrong output in test 2"),
        ("print(input() + input())", "EOFError: EOF when reading a line in test 1"),
        ("print(1 / 0)", "ZeroDivisionError: division by zero in test 1"),
        ("raise SystemExit('no')", "wrong output in test 1"),
    ],
)  # fmt: skip
def test_programs_that_read_and_print(grade_code, code, reason):
    verdict = grade_code(code, SUMS)
    assert verdict.reason == reason
    assert (verdict.outcome is Outcome.CORRECT) is (reason == "")


SORTED = calls("order", ([[3, 1, 2]], [1, 2, 3]), ([[]], []))


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("def order(values): return sorted(values)", CORRECT),
        ("def order(values): return tuple(sorted(values))", CORRECT),
        ("order = lambda values: sorted(values)", CORRECT),
        ("class Solution:\n  def order(self, values):\n    print('noise')\n    return sorted(values)", CORRECT),
        ("import numpy\ndef order(values): return numpy.sort(numpy.array(values, dtype=int))", CORRECT),
        ("def order(values): return values", Verdict(Outcome.WRONG, "wrong result in test 1")),
        ("def order(values): return [1, 2, 3]", Verdict(Outcome.WRONG, "wrong result in test 2")),
        ("def order(values): values.sort()", Verdict(Outcome.WRONG, "wrong result in test 1")),
        ("def order(values): return set(values)", Verdict(Outcome.WRONG, "returned a set in test 1")),
        ("def other(values): return sorted(values)", Verdict(Outcome.WRONG, "no function order")),
        ("def order(): return []",
         Verdict(Outcome.ERROR, "TypeError: order() takes 0 positional arguments but 1 was given in test 1")),
        ("import sys\nsys.exit(0)", Verdict(Outcome.ERROR, "ended before the function returned in test 1")),
        ("import os\ndef order(values): os._exit(0)",
         Verdict(Outcome.ERROR, "ended before the function returned in test 1")),
    ],
)  # fmt: skip
def test_functions_that_are_called(grade_code, code, verdict):
    assert grade_code(code, SORTED) == verdict


def test_calls_in_the_form_of_eurus(grade_code):
    tests = stdio([[2, 3], [[1, 2], 4]], [[5], 7], fn_name="add")
    assert grade_code("def add(a, b): return b + (a if isinstance(a, int) else sum(a))", tests) == CORRECT
    assert grade_code("def add(a, b): return [5]", tests).reason == "wrong result in test 2"


def test_at_most_so_many_tests_are_run(code_grader):
    tests = stdio(["1", "2"], ["1", "3"])
    assert code_grader.grade_all(["print(input())"], [tests])[0].reason == "wrong output in test 2"
    with CodeGrader(code_grader.limits, max_tests=1, workers=1) as first_only:
        assert first_only.grade_all(["print(input())"], [tests]) == [CORRECT]


# --- dispatch ---------------------------------------------------------------------------------------------------


def test_problems_are_graded_by_their_tests_or_their_answer():
    problems = [Question([], "7"), Question([], "", SUMS), Question([], "8"), Question([], "", SUMS)]
    texts = ["\\boxed{7}", "```python\nprint(sum(map(int, input().split())))\n```", "\\boxed{7}", "\\boxed{3}"]
    with Grader() as grader:
        try:
            verdicts = grader.grade_all(texts, problems)
        except SandboxError as error:
            pytest.skip(str(error))
    outcomes = [Outcome.CORRECT, Outcome.CORRECT, Outcome.WRONG, Outcome.NO_ANSWER]
    assert [verdict.outcome for verdict in verdicts] == outcomes


def test_no_sandbox_is_started_for_answers_nor_for_responses_without_a_program(monkeypatch):
    monkeypatch.setattr("entropy_mechanism.rewards.code.Sandbox", lambda *a: pytest.fail("started"))
    with Grader() as grader:
        assert grader.grade_all(["\\boxed{7}"], [Question([], "7")]) == [CORRECT]
        assert grader.grade_all(["no code"], [Question([], "", SUMS)])[0].outcome is Outcome.NO_ANSWER


def test_several_sandboxes_give_the_verdicts_of_one_in_order(code_grader):
    programs = [f"print(sum(map(int, input().split())) + {n % 3})" for n in range(12)]
    with CodeGrader(code_grader.limits, workers=3) as three:
        verdicts = three.grade_all(programs, [SUMS] * 12)
        assert verdicts == code_grader.grade_all(programs, [SUMS] * 12)
    assert [verdict == CORRECT for verdict in verdicts] == [n % 3 == 0 for n in range(12)]


def test_the_grade_stage_writes_outcome_answer_and_reason(tmp_path):
    problems = [Problem("a", "s", "p", "", tests=SUMS), Problem("b", "s", "q", "7")]
    to_frame(problems).to_parquet(tmp_path / "problems.parquet", index=False)
    responses = {"a": "```python\nprint(3)\n```", "b": "\\boxed{7}"}
    samples = pd.DataFrame(
        [
            {"problem_id": name, "decoding": "greedy", "sample": 0, "response": text}
            for name, text in responses.items()
        ]
    )
    samples.to_parquet(tmp_path / "samples.parquet", index=False)
    try:
        paths = (tmp_path / "samples.parquet", tmp_path / "problems.parquet")
        grade_samples(*paths, "strict", "p/b", tmp_path / "g", tmp_path)
    except SandboxError as error:
        pytest.skip(str(error))
    grades = pd.read_parquet(tmp_path / "g")
    assert grades["outcome"].tolist() == ["wrong", "correct"]
    assert grades["answer"].tolist() == ["print(3)\n", "7"]
    assert grades["reason"].tolist() == ["wrong output in test 2", ""]
    assert grades["correct"].tolist() == [False, True]
