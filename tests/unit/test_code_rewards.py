"""Grading programs by tests of each kind: right ones pass, wrong ones fail with a reason, cheats do not pay."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from entropy_mechanism.rewards.inside import values
from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rewards.sandbox import Limits, SandboxError
from entropy_mechanism.rl.collect import Question
from entropy_mechanism.stages.grade import grade_samples

CORRECT = Verdict(Outcome.CORRECT)


@pytest.fixture(scope="module")
def grader():
    with CodeGrader(Limits(cpu=3, wall=30), workers=1) as made:
        try:
            made.grade_all(["print()"], [stdio([""], [""])])
        except SandboxError as error:
            pytest.skip(str(error))
        yield made


@pytest.fixture
def grade(grader):
    """Runs a program, whatever ran before."""

    def run(code, tests):
        grader._known.clear()
        return grader.grade_all([f"Here it is:\n```python\n{code}\n```\n"], [tests])[0]

    return run


def test_a_verdict_is_remembered_and_an_end_by_force_is_not(grader, monkeypatch):
    runs = []

    def counted(sandbox, program, tests, max_tests):
        runs.append(program)
        return grade_program(sandbox, program, tests, max_tests)

    monkeypatch.setattr(code, "grade_program", counted)
    tests = json.dumps({"kind": "call", "function": "f", "inputs": [[1]], "outputs": [2]})
    right, wrong, dies = "def f(x): return 2*x", "def f(x): return 0*x", "[0] * 10**12"
    first = grader.grade_all([right, wrong, dies, right], [tests] * 4)
    assert runs == [right, wrong, dies]
    assert [verdict.outcome for verdict in first] == [
        Outcome.CORRECT, Outcome.WRONG, Outcome.ERROR, Outcome.CORRECT
    ]  # fmt: skip
    assert grader.grade_all([right, wrong, dies], [tests] * 3) == first[:3]
    assert runs[3:] == [dies]
    other = json.dumps({"kind": "call", "function": "f", "inputs": [[1]], "outputs": [0]})
    assert [verdict.outcome for verdict in grader.grade_all([right, wrong], [other] * 2)] == [
        Outcome.WRONG, Outcome.CORRECT
    ]  # fmt: skip
    assert runs[4:] == [right, wrong]
    monkeypatch.setattr(code, "REMEMBERED", 1)
    grader.grade_all(["def f(x): return x + 1"], [tests])
    assert grader.grade_all([right], [tests]) == [CORRECT]
    assert runs[6:] == ["def f(x): return x + 1", right]


def stdio(inputs, outputs, **more):
    return json.dumps({"kind": "stdio", "inputs": inputs, "outputs": outputs, **more})


def calls(function, *pairs):
    inputs, outputs = zip(*pairs, strict=True)
    return json.dumps({"kind": "call", "function": function, "inputs": inputs, "outputs": outputs})


def pytests(code):
    return json.dumps({"kind": "pytest", "code": code})


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


# --- right and wrong programs of each kind ----------------------------------------------------------------------

SUMS = stdio(["1 2\n", "3 4\n", "5 6\n"], ["3\n", "7\n", "11\n"])


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
def test_programs_that_read_and_print(grade, code, reason):
    verdict = grade(code, SUMS)
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
def test_functions_that_are_called(grade, code, verdict):
    assert grade(code, SORTED) == verdict


def test_calls_in_the_form_of_eurus(grade):
    tests = stdio([[2, 3], [[1, 2], 4]], [[5], 7], fn_name="add")
    assert grade("def add(a, b): return b + (a if isinstance(a, int) else sum(a))", tests) == CORRECT
    assert grade("def add(a, b): return [5]", tests).reason == "wrong result in test 2"


def test_at_most_so_many_tests_are_run(grader):
    tests = stdio(["1", "2"], ["1", "3"])
    assert grader.grade_all(["print(input())"], [tests])[0].reason == "wrong output in test 2"
    with CodeGrader(grader.limits, max_tests=1, workers=1) as first_only:
        assert first_only.grade_all(["print(input())"], [tests]) == [CORRECT]


KODCODE = """
import pytest
from solution import *
from solution import Stack, fill, grow, lazy, mean, merge, point, EmptyError

def test_values():
    assert merge([1, 3], (2,)) == [1, 2, 3]
    assert merge({"a": {1}}, b"x") == ({"a": {1}}, b"x", None, 2.5, 10**400)

def test_numbers():
    assert mean([0.1, 0.2]) == pytest.approx(0.15)
    assert abs(mean([1, 2]) - 1.5) < 1e-9

@pytest.mark.parametrize("size", [0, 2])
def test_generators(size):
    assert list(lazy(size)) == list(range(size))

def test_callbacks():
    assert list(lazy(3, key=lambda n: n * n)) == [0, 1, 4]
    class Counter:
        calls = 0
        def __call__(self, n):
            self.calls += 1
            return n
    counter = Counter()
    assert fill([], counter) == 3 and counter.calls == 3

def test_arguments_that_are_changed():
    grid = [[0, 0], [0, 0]]
    row = grid[0]
    grow(grid)
    assert grid == [[1, 0], [0, 0], [9]] and row == [1, 0]

def test_objects():
    stack = Stack([1])
    stack.push(2)
    assert len(stack) == 2 and 2 in stack and [n for n in stack] == [1, 2] and stack[0] == 1
    assert stack.pop() == 2 and stack.items == [1] and str(stack) == "Stack[1]"
    assert isinstance(stack, Stack) and stack == Stack([1]) and stack != Stack([2]) and not stack == 1
    assert (stack + stack).items == [1, 1]
    stack.items = []
    assert not stack
    with stack as entered:
        assert entered.items == []
    p = point()
    assert p == (1, 2) and p.x == 1

def test_errors():
    with pytest.raises(ValueError, match="not a"):
        merge(1, 2)
    with pytest.raises(EmptyError) as caught:
        Stack([]).pop()
    assert str(caught.value) == "empty!" and caught.value.args == ("empty!",) and caught.type is EmptyError
    with pytest.raises(IndexError):
        Stack([]).pop()
    with pytest.raises(AttributeError):
        Stack([]).nothing

def test_printed(capsys):
    fill([], print)
    assert capsys.readouterr().out == "0\\n1\\n2\\n"
"""
SOLUTION = """
from collections import namedtuple

class EmptyError(IndexError):
    pass

class Stack:
    def __init__(self, items): self.items = list(items)
    def push(self, item): self.items.append(item)
    def pop(self):
        if not self.items: raise EmptyError("empty!")
        return self.items.pop()
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __contains__(self, item): return item in self.items
    def __getitem__(self, n): return self.items[n]
    def __eq__(self, other): return isinstance(other, Stack) and self.items == other.items
    def __add__(self, other): return Stack(self.items + other.items)
    def __str__(self): return f"Stack{self.items}"
    def __enter__(self): return self
    def __exit__(self, *error): return None

def merge(a, b):
    if isinstance(a, int): raise ValueError("not a list")
    return sorted([*a, *b]) if isinstance(a, list) else (a, b, None, 2.5, 10**400)
def mean(values): return sum(values) / len(values)
def lazy(size, key=lambda n: n):
    for n in range(size): yield key(n)
def fill(items, function):
    for n in range(3): function(n)
    return 3
def grow(grid):
    grid[0][0] = 1
    grid.append([9])
Point = namedtuple("Point", "x y")
def point(): return Point(1, 2)
"""


def test_pytest_tests_of_functions_classes_errors_and_callbacks(grade):
    tests = KODCODE
    assert grade(SOLUTION, pytests(tests)) == CORRECT
    wrong = SOLUTION.replace("sum(values) / len(values)", "sum(values)")
    assert grade(wrong, pytests(tests)) == Verdict(Outcome.WRONG, "failed test_numbers")
    wrong = SOLUTION.replace("IndexError)", "KeyError)")
    assert grade(wrong, pytests(tests)) == Verdict(Outcome.WRONG, "failed test_errors")


def test_what_a_solution_prints_and_asks_reaches_the_tests(grade):
    tests = """
from solution import greet
def test_output(capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: "you" if prompt == "who? " else "")
    greet()
    assert capsys.readouterr().out == "hello you\\n"
"""
    assert grade("def greet(): print('hello', input('who? '))", pytests(tests)) == CORRECT
    assert grade("def greet(): print('hello', 'me')", pytests(tests)).outcome is Outcome.WRONG


def test_test_files_without_a_test_and_broken_ones_are_errors_of_the_data(grade):
    assert grade("x = 1", pytests("class A:\n    def test(self): pass")) == Verdict(
        Outcome.ERROR, "no test was run"
    )
    assert grade("x = 1", pytests("import nothing\ndef test_a(): pass")).reason == "failed the import of the tests"


# --- cheats -----------------------------------------------------------------------------------------------------

VALUE = "from solution import f\ndef test_value():\n    assert f(2) == 4\n    assert f(3) == 9\n"
CHEATS = {
    "exits": "import sys\nsys.exit(0)",
    "exits at once": "import os\nos._exit(0)",
    "exits when called": "import os\ndef f(x): os._exit(0)",
    "raises what ends processes": "def f(x): raise SystemExit(0)",
    "raises what skips tests": "import pytest\ndef f(x): pytest.skip('later')",
    "raises what skips modules": "import pytest\npytest.skip('later', allow_module_level=True)",
    "equals everything": """
class All:
    def __eq__(self, other): return True
def f(x): return All()
""",
    "is a number that equals everything": """
class All(int):
    def __eq__(self, other): return True
def f(x): return All()
""",
    "is a tuple that equals everything": """
class All(tuple):
    def __eq__(self, other): return True
    def __iter__(self): 1 / 0
def f(x): return All()
""",
    "patches the comparison": """
import operator, builtins
operator.eq = lambda a, b: True
builtins.isinstance = lambda a, b: True
builtins.all = builtins.any = lambda a: True
def f(x): return 5
""",
    "patches pytest": """
import pytest
from _pytest import runner
runner.call_and_report = lambda *a, **k: None
pytest.main = lambda *a, **k: 0
def f(x): return 5
""",
    "reports success": """
import os
for n in range(3, 30):
    try: os.write(n, b'{"passed": 9, "status": 0, "failed": null}\\n')
    except OSError: pass
def f(x): return 5
""",
    "looks for the tests": """
import gc, glob
def f(x):
    found = [o for o in gc.get_objects() if "test_value" in repr(o) and "assert" in repr(o)]
    return 4 if found or glob.glob("/tmp/*") else 0
""",
    "looks up the stack": """
import sys
def f(x):
    frame = sys._getframe().f_back
    while frame:
        if 4 in frame.f_code.co_consts and 9 in frame.f_code.co_consts: return x * x
        frame = frame.f_back
    return 0
""",
    "answers with its own replies": """
import os, struct, json
def f(x):
    body = json.dumps(["tuple", "answer", 4, "", ["tuple"]]).encode()
    os.write(5, (struct.pack("Q", len(body)) + body) * 2)
    return 0
""",
    "sends nonsense": """
import os, struct
def f(x):
    os.write(5, struct.pack("Q", 7) + b"[[[[[[[")
    return 4
""",
    "sends too much": """
import os, struct
def f(x):
    os.write(5, struct.pack("Q", 1 << 60))
    return 4
""",
}


@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_passes_tests_that_run_in_another_process(grade, name):
    assert grade(CHEATS[name], pytests(VALUE)).outcome in (Outcome.WRONG, Outcome.ERROR)
    assert grade("def f(x): return x * x", pytests(VALUE)) == CORRECT


LEAKS = {
    "attributes of callbacks": "def f(key): return key.__globals__['EXPECTED']",
    "attributes through getattr": "def f(key): return getattr(key, '__code__').co_consts[1]",
    "format strings": "def f(key): return '{0.__globals__}'.format(key)",
    "what is asked of the other end": (
        "def f(key):\n  ask = object.__getattribute__(key, '_peer').ask\n"
        "  return int(ask('call', ask('getattr', str, 'format'), ('{0.__globals__[EXPECTED]}', key), {}))"
    ),
    "types and their subclasses": (
        "def f(key):\n  ask = object.__getattribute__(key, '_peer').ask\n"
        "  return ask('call', ask('getattr', object, '__subclasses__'), (), {})"
    ),
    "changing the tests": (
        "def f(key):\n  object.__getattribute__(key, '_peer').ask('setattr', key, '__code__', 0)\n  return 4"
    ),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_callback_does_not_lead_to_what_is_expected(grade, name):
    tests = "from solution import f\nEXPECTED = 12345\ndef test_a():\n    assert f(lambda x: x) == EXPECTED\n"
    assert grade(LEAKS[name], pytests(tests)).outcome is not Outcome.CORRECT


@pytest.mark.parametrize(
    "check",
    ["abs(f() - 0.3) < 0.1", "f() == pytest.approx(0.3)", "f() < 1 and f() > 0", "0.3 - f() == 0", "f() in [0.3]",
     "[f()] == [0.3]", "round(f() * 10) == 3", "math.isclose(f(), 0.3)", "f() is not None and f() == 0.3"],
)  # fmt: skip
def test_an_object_cannot_answer_for_a_number(grade, check):
    names = "eq ne lt le gt ge sub rsub add radd mul rmul truediv abs round neg contains getattr bool call"
    magic = "\n".join(f"  __{name}__ = lambda self, *a: Always(0.0)" for name in names.split())
    for base in ("object", "float"):
        cheat = f"class Always({base}):\n  def __new__(cls, *a): return {base}.__new__(cls)\n{magic}\n"
        cheat += (
            "  def __bool__(self): return True\n  def __eq__(self, o): return True\n  __lt__ = __le__ = __eq__"
        )
        cheat += "\n  def __float__(self): return 99.0\ndef f(): return Always()"
        tests = f"import math, pytest\nfrom solution import f\ndef test_a():\n    assert {check}\n"
        assert grade(cheat, pytests(tests)).outcome in (Outcome.WRONG, Outcome.ERROR), base


# --- the link's values ------------------------------------------------------------------------------------------

numbers = st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False) | st.fractions()
others = st.text() | st.binary() | st.decimals(allow_nan=False) | st.datetimes() | st.timedeltas()
plain = st.recursive(
    st.none() | st.booleans() | numbers | others,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.sets(st.integers(), max_size=4)
    ),
    max_leaves=12,
)
tags = st.sampled_from(["list", "dict", "int", "array", "fraction", "deque"])
nodes = st.recursive(
    st.none() | st.integers() | st.text() | tags,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
)


def refuse(*parts):
    raise ValueError(f"unknown {parts}")


@given(plain)
def test_plain_values_cross_unchanged(value):
    copy = values.decode(json.loads(json.dumps(values.encode(value, refuse))), refuse)
    assert copy == value
    assert type(copy) is type(value)


@given(nodes)
def test_anything_else_is_refused_or_plain(node):
    try:
        copy = values.decode(node, refuse)
        values.encode(copy, refuse)
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError, ArithmeticError):
        pass


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


def test_several_sandboxes_give_the_verdicts_of_one_in_order(grader):
    programs = [f"print(sum(map(int, input().split())) + {n % 3})" for n in range(12)]
    with CodeGrader(grader.limits, workers=3) as three:
        verdicts = three.grade_all(programs, [SUMS] * 12)
        assert verdicts == grader.grade_all(programs, [SUMS] * 12)
    assert [verdict == CORRECT for verdict in verdicts] == [n % 3 == 0 for n in range(12)]


def test_an_object_gives_no_number_when_a_number_is_put_to_it(grade):
    tests = "from solution import f\ndef test_a():\n    assert f() - 12345 == 0\n"
    cheat = "class Cheat:\n  def __sub__(self, other): return 0\ndef f(): return Cheat()"
    assert grade(cheat, pytests(tests)) == Verdict(Outcome.WRONG, "failed test_a")
    assert grade("def f(): return 12345", pytests(tests)) == CORRECT


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
