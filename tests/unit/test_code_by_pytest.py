"""Programs graded by a test file: functions, classes, errors, callbacks and what is printed."""

from program_tests import CORRECT, pytests

from entropy_mechanism.rewards.code import (
    Verdict,
)
from entropy_mechanism.rewards.outcome import Outcome

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


def test_pytest_tests_of_functions_classes_errors_and_callbacks(grade_code):
    tests = KODCODE
    assert grade_code(SOLUTION, pytests(tests)) == CORRECT
    wrong = SOLUTION.replace("sum(values) / len(values)", "sum(values)")
    assert grade_code(wrong, pytests(tests)) == Verdict(Outcome.WRONG, "failed test_numbers")
    wrong = SOLUTION.replace("IndexError)", "KeyError)")
    assert grade_code(wrong, pytests(tests)) == Verdict(Outcome.WRONG, "failed test_errors")


def test_what_a_solution_prints_and_asks_reaches_the_tests(grade_code):
    tests = """
from solution import greet
def test_output(capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: "you" if prompt == "who? " else "")
    greet()
    assert capsys.readouterr().out == "hello you\\n"
"""
    assert grade_code("def greet(): print('hello', input('who? '))", pytests(tests)) == CORRECT
    assert grade_code("def greet(): print('hello', 'me')", pytests(tests)).outcome is Outcome.WRONG


def test_test_files_without_a_test_and_broken_ones_are_errors_of_the_data(grade_code):
    assert grade_code("x = 1", pytests("class A:\n    def test(self): pass")) == Verdict(
        Outcome.ERROR, "no test was run"
    )
    assert (
        grade_code("x = 1", pytests("import nothing\ndef test_a(): pass")).reason
        == "failed the import of the tests"
    )
