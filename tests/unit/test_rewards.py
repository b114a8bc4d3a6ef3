r"""Grading: the last balanced box, exact comparison, then math-verify; nothing hostile gets out of hand."""

import subprocess
import sys
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from entropy_mechanism.rewards.boxed import last_boxed
from entropy_mechanism.rewards.math import MAX_ANSWER, Outcome, grade, reward

DEADLINE = 15.0
"""Seconds that grading one response may take: three steps of 5 seconds each."""


def boxed(content):
    return f"\\boxed{{{content}}}"


BALANCED = st.recursive(
    st.text(st.characters(exclude_characters="\\{}", exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(["\\{", "\\}", "\\\\", "\\frac"]),
    lambda inner: st.lists(inner, max_size=4).map("".join) | inner.map(lambda text: f"{{{text}}}"),
    max_leaves=8,
)


# --- the last balanced box ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("so it is \\boxed{7}", "7"),
        ("\\boxed{ 7 } units", "7"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{a_{b_{c}}} and }", "a_{b_{c}}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\left\\{ 1}", "\\left\\{ 1"),
        ("\\boxed{1\\\\}", "1\\\\"),
        ("\\boxed{8}. No: \\boxed{7}", "7"),
        ("\\boxed{8}\\boxed{7}", "7"),
        ("\\boxed{7} or \\boxed{8", "7"),
        ("\\boxed{7} or \\boxed{8\\}", "7"),
        ("\\boxed{6 \\boxed{7}}", "7"),
        ("\\boxed{6 \\boxed{7}", "7"),
        ("\\boxed{}", ""),
        ("the answer is 7", None),
        ("\\boxed 7", None),
        ("boxed{7}", None),
        ("\\boxed{7", None),
        ("\\boxed{7\\", None),
        ("", None),
    ],
)
def test_the_last_box_whose_braces_balance_counts(text, content):
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\\boxed{7}", "7"),
        (r"x=7 \\\boxed{7}", "7"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{a \\{b} c}", r"a \\{b} c"),
    ],
)
def test_backslashes_before_boxes_and_braces(text, content):
    assert last_boxed(text) == content


@given(BALANCED, st.text(max_size=20), st.text(max_size=20))
def test_balanced_content_survives_a_box(content, before, after):
    assume("boxed" not in before + after)
    assert last_boxed(before + boxed(content) + after) == content.strip()


@given(BALANCED, BALANCED)
def test_the_later_of_two_boxes_counts_and_an_open_one_after_them_does_not(first, second):
    assert last_boxed(f"{boxed(first)}. No: {boxed(second)}") == second.strip()
    assert last_boxed(f"{boxed(first)} {boxed(second)} \\boxed{{3") == second.strip()


@given(st.text("\\boxed{}7 ", max_size=60))
def test_a_box_is_found_exactly_when_one_is_closed(text):
    content = last_boxed(text)
    if "\\boxed{" not in text or "}" not in text:
        assert content is None
    if content is not None:
        assert content in text


def test_a_very_long_response_of_open_boxes_is_read_quickly():
    start = time.perf_counter()
    assert last_boxed("\\boxed{" * 100_000) is None
    assert time.perf_counter() - start < 5  # quadratic work would take minutes


# --- exact and integer answers ------------------------------------------------------------------------------


def refuse_math_verify(*arguments):
    raise AssertionError(f"math-verify was asked about {arguments}")


@given(st.integers(-(10**17), 10**17), st.integers(-(10**17), 10**17))
def test_integers_are_right_exactly_when_equal(given_number, gold):
    assert grade(boxed(given_number), str(gold)) is (Outcome.CORRECT if given_number == gold else Outcome.WRONG)
    assert grade(boxed(gold), str(gold)) is Outcome.CORRECT


@pytest.mark.parametrize(
    ("answer", "gold", "outcome"),
    [
        ("007", "7", Outcome.CORRECT),
        ("+7", "7", Outcome.CORRECT),
        ("7", "+7", Outcome.CORRECT),
        ("-0", "0", Outcome.CORRECT),
        ("7.", "7", Outcome.CORRECT),
        ("7 .", "7", Outcome.CORRECT),
        (" 7 ", " 7 ", Outcome.CORRECT),
        ("-7", "7", Outcome.WRONG),
        ("70", "7", Outcome.WRONG),
        ("1000000000000000001", "1000000000000000001", Outcome.CORRECT),
        ("\\text{yes}", "\\text{yes}", Outcome.CORRECT),
    ],
)
def test_plain_answers_are_compared_without_math_verify(monkeypatch, answer, gold, outcome):
    monkeypatch.setattr("entropy_mechanism.rewards.math._verify", refuse_math_verify)
    assert grade(f"It is {boxed(answer)}.", gold) is outcome


@pytest.mark.parametrize("response", ["7", "the answer is 7.", boxed(""), boxed("  "), "\\boxed{7", ""])
def test_a_response_without_a_box_has_no_answer(response):
    assert grade(response, "7") is Outcome.NO_ANSWER


def test_the_last_box_is_graded_even_when_an_earlier_one_is_right():
    assert grade(f"{boxed(8)}. No: {boxed(7)}", "7") is Outcome.CORRECT
    assert grade(f"{boxed(7)}. No: {boxed(8)}", "7") is Outcome.WRONG
    assert grade(f"{boxed(7)}{boxed('1/3')}", "7") is Outcome.WRONG
    assert grade(f"{boxed('1/3')}{boxed('1/2')}", "0.5") is Outcome.CORRECT


# --- math-verify --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("\\dfrac{1}{2}", "\\frac{1}{2}"),
        ("\\tfrac12", "\\frac{1}{2}"),
        ("0.5", "1/2"),
        ("1/2", "0.5"),
        ("\\frac{2}{4}", "\\frac{1}{2}"),
        ("1,234", "1234"),
        ("1234", "1,234"),
        ("\\[7\\]", "7"),
        ("$7$", "7"),
        ("\\frac{1}{2}.", "0.5"),
        ("3", "3.0"),
        ("x=7", "7"),
        ("\\sqrt{4}", "2"),
        ("2\\sqrt{2}", "\\sqrt{8}"),
        ("\\{1,2\\}", "\\{2,1\\}"),
    ],
)
def test_equal_values_in_another_form_are_right(answer, gold):
    assert grade(boxed(answer), gold) is Outcome.CORRECT


@pytest.mark.parametrize(
    ("answer", "gold"),
    [("\\frac{1}{3}", "\\frac{1}{2}"), ("0.49", "1/2"), ("(1,2)", "(2,1)"), ("7,8", "7"), ("nonsense", "7"),
     ("\\frac{1}{0}", "7"), ("\\pi", "3.14")],
)  # fmt: skip
def test_other_values_are_wrong(answer, gold):
    assert grade(boxed(answer), gold) is Outcome.WRONG


@given(st.integers(-99, 99), st.integers(1, 99), st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_a_fraction_equals_its_expanded_form_and_no_neighbour(numerator, denominator, factor):
    gold = f"\\frac{{{numerator}}}{{{denominator}}}"
    assert grade(boxed(f"\\dfrac{{{numerator * factor}}}{{{denominator * factor}}}"), gold) is Outcome.CORRECT
    assert grade(boxed(f"{numerator + 1}/{denominator}"), gold) is Outcome.WRONG


# --- hostile answers ----------------------------------------------------------------------------------------


def test_an_over_long_answer_is_wrong_without_being_parsed(monkeypatch):
    monkeypatch.setattr("entropy_mechanism.rewards.math._verify", refuse_math_verify)
    assert grade(boxed("1+" * MAX_ANSWER + "1"), str(MAX_ANSWER + 1)) is Outcome.WRONG
    assert grade(boxed("9" * (MAX_ANSWER + 1)), "7") is Outcome.WRONG


@pytest.mark.parametrize(
    "answer", ["{" * 6 + "}" * 6, "\\frac" * 90, "\\sqrt{" * 40 + "2" + "}" * 40, "\x00\ud7ff", "9" * 400]
)
def test_malformed_answers_are_not_right(answer):
    start = time.perf_counter()
    assert grade(boxed(answer), "7") in (Outcome.WRONG, Outcome.ERROR, Outcome.TIMEOUT)
    assert time.perf_counter() - start < DEADLINE


def test_an_error_inside_math_verify_is_an_outcome_of_its_own(monkeypatch):
    def fail(*arguments, **options):
        raise RecursionError("too deep")

    monkeypatch.setattr("math_verify.parse", fail)
    assert grade(boxed("not asked before"), "1/2") is Outcome.ERROR


def test_a_power_tower_ends_within_its_deadline_and_the_next_answer_is_graded_as_ever():
    start = time.perf_counter()
    assert grade(boxed("9^{9^{9^9}}"), "7") in (Outcome.TIMEOUT, Outcome.WRONG)
    assert time.perf_counter() - start < DEADLINE
    assert grade(boxed("\\frac{3}{6}"), "1/2") is Outcome.CORRECT
    assert grade(boxed("\\frac{3}{7}"), "1/2") is Outcome.WRONG
    time.sleep(0.1)
    assert grade(boxed("7"), "7") is Outcome.CORRECT


@given(st.text(max_size=30), st.sampled_from(["7", "\\frac{1}{2}", "(1,2)"]))
@settings(max_examples=40, deadline=None)
def test_every_response_has_an_outcome(text, gold):
    assert isinstance(grade(text, gold), Outcome)
    assert isinstance(grade(boxed(text.replace("{", "").replace("}", "")), gold), Outcome)


# --- outcome and reward -------------------------------------------------------------------------------------


def test_only_a_right_answer_is_rewarded():
    assert {outcome: reward(outcome) for outcome in Outcome} == {
        Outcome.CORRECT: 1.0,
        Outcome.WRONG: 0.0,
        Outcome.NO_ANSWER: 0.0,
        Outcome.TIMEOUT: 0.0,
        Outcome.ERROR: 0.0,
    }


def test_outcomes_are_the_words_that_files_hold():
    assert [str(outcome) for outcome in Outcome] == ["correct", "wrong", "no_answer", "timeout", "error"]
    assert Outcome("correct") is Outcome.CORRECT


def test_integers_are_graded_without_loading_sympy():
    program = (
        "import sys; from entropy_mechanism.rewards.math import grade; "
        "print(grade(r'\\boxed{07}', '7'), sorted({'sympy', 'math_verify', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "correct []"
