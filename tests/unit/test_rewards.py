r"""Grading: the last balanced box, spelling, plain numbers, then math-verify. Its processes are tested apart."""

import json
import random
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from entropy_mechanism.data.problems import Problem, to_frame
from entropy_mechanism.evaluation.metrics import graded_samples, problem_scores
from entropy_mechanism.rewards import numbers
from entropy_mechanism.rewards.boxed import last_boxed
from entropy_mechanism.rewards.math import MAX_ANSWER, MAX_DEPTH, Grader, voted_answer
from entropy_mechanism.rewards.outcome import Outcome, reward
from entropy_mechanism.rewards.spelling import canonical, normalised, sides
from entropy_mechanism.stages.grade import grade_samples

GOLDEN = Path(__file__).parents[1] / "data/math_answers.tsv"


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


# --- answers in process: integers, plain numbers, spelling ----------------------------------------------------


@pytest.fixture
def alone(monkeypatch):
    """A grader that must not ask its workers anything."""
    grader = Grader()
    monkeypatch.setattr(grader.workers, "_start", lambda waiting: pytest.fail("a worker was asked"))
    return grader


def grade_alone(answer, gold, kind="strict"):
    grader = Grader(kind)
    grader.workers.compare = lambda requests: [None] * len(requests)
    return grader.grade([(boxed(answer), gold)])[0]


@pytest.mark.parametrize("kind", ["strict", "paper"])
@given(st.integers(-(10**17), 10**17), st.integers(-(10**17), 10**17))
def test_integers_are_right_exactly_when_equal(kind, given_number, gold):
    expected = Outcome.CORRECT if given_number == gold else Outcome.WRONG
    assert grade_alone(given_number, str(gold), kind) is expected
    assert grade_alone(gold, str(gold), kind) is Outcome.CORRECT


@pytest.mark.parametrize("kind", ["strict", "paper"])
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
def test_integers_and_equal_texts_need_no_worker(kind, answer, gold, outcome):
    assert grade_alone(answer, gold, kind) is outcome


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_fractions_are_right_exactly_when_equal(a, b):
    for written in (f"{a.numerator}/{a.denominator}", rf"\frac{{{a.numerator}}}{{{a.denominator}}}"):
        expected = Outcome.CORRECT if a == b else Outcome.WRONG
        assert grade_alone(written, f"{b.numerator}/{b.denominator}") is expected


@given(st.integers(-(10**9), 10**9), st.integers(1, 6), st.integers(1, 9))
def test_a_decimal_is_the_number_it_spells(digits, places, period):
    text = f"{'-' * (digits < 0)}{abs(digits) // 10**places}.{abs(digits) % 10**places:0{places}d}"
    value = Fraction(digits, 10**places)
    assert numbers.read(text).exact == value
    assert numbers.read(f"{text}e-3").exact == value / 1000
    assert numbers.read(rf"{text}\times 10^{{12}}").exact == value * 10**12
    if digits >= 0:
        assert numbers.read(rf"{text}\overline{{{period}}}").exact == value + Fraction(period, 9 * 10**places)


@given(st.fractions(Fraction(-1000), Fraction(1000), max_denominator=5000))
def test_a_number_rounded_to_six_decimals_is_right_and_to_three_wrong(value):
    assume(abs(value) > Fraction(1, 100) and 10**6 % value.denominator)
    six, three = (Fraction(round(value * 10**places), 10**places) for places in (6, 3))
    assert numbers.agree(value, six)
    assert not numbers.agree(value, three)
    if abs(three - value) > abs(value) / 1000:
        assert not numbers.agree(value / 10**9, three / 10**9)


@given(st.lists(st.integers(0, 12), min_size=2, max_size=3))
def test_only_enormous_towers_are_called_enormous(levels):
    value = levels[-1]
    for base in levels[-2::-1]:
        assume(value < 10**6)
        value = base**value if value * max(1, base).bit_length() < 10**6 else 10**100_000
    tower = "^{".join(map(str, levels)) + "}" * (len(levels) - 1)
    if numbers.is_enormous(tower):
        assert value > 10**20_000


@given(st.text("0123456789.,/\\frac{}^-+ eE!timesoverline", max_size=40))
def test_reading_a_number_never_fails(text):
    numbers.read(text)
    numbers.is_enormous(text)


def golden():
    rows = [line.split("\t") for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
    return [(strict, strict if paper == "-" else paper, gold, given) for strict, paper, gold, given in rows]


@pytest.mark.parametrize("text", sorted({text for *_, gold, given in golden() for text in (gold, given)}))
def test_spelling_twice_changes_nothing(text):
    assert normalised(normalised(text)) == normalised(text)
    assert canonical(canonical(text)) == canonical(text)


def test_spelling_takes_linear_time():
    start = time.perf_counter()
    for piece in ("\\frac", "{", "1,", "\\text{a}", " ", "\\left", "1.", "^", "\\", "x_", "$", "."):
        canonical(piece * 20_000)
    assert time.perf_counter() - start < 10  # quadratic work would take minutes


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("y=2x", "y", "2x"),
        ("f(x) = x+1", "f(x)", "x+1"),
        (r"\frac{dM}{dt}=kM", "fracdMdt", "kM"),
        (r"m_{\max }=n-1", "m_max", "n-1"),
        ("2x+z=1", None, "2x+z=1"),
        ("x=y=3", None, "x=y=3"),
        ("x=", None, "x="),
        ("7", None, "7"),
    ],
)
def test_an_answer_that_defines_a_name_has_two_sides(text, name, value):
    assert sides(text) == (name, value)


@pytest.mark.parametrize(
    "answers",
    [
        ["\\frac12", "\\dfrac{1}{2}", "1/2", "0.5", "\\frac{2}{4}", ".50", "$\\tfrac{1}{2}$."],
        ["1234", "1,234", "1{,}234", "1,\\!234", "01234", "1234.0"],
        ["10", "10\\text{ cm}", "10\\,\\mathrm{cm}", "10.", "10^\\circ"],
        ["(3, \\frac{\\pi}{2})", "\\left(3,\\frac{\\pi}{2}\\right)", "( 3,\\dfrac{\\pi}2)"],
        ["1\\times10^{9999}", "10\\cdot10^{9998}", "100\\cdot 10^{9997}"],
    ],
)
def test_spellings_of_one_answer_vote_together_and_apart_from_others(answers):
    assert len({voted_answer(boxed(answer)) for answer in answers}) == 1
    others = {voted_answer(boxed(other)) for other in ("\\frac13", "\\frac{\\pi}{2}", "12", "\\pi r", "1 2")}
    assert len(others) == 5
    assert voted_answer(boxed(answers[0])) not in others


def test_a_response_without_an_answer_does_not_vote():
    assert voted_answer("7") is None
    assert voted_answer(boxed(" ")) is None


@pytest.mark.parametrize("response", ["7", "the answer is 7.", boxed(""), boxed("  "), "\\boxed{7", ""])
def test_a_response_without_a_box_has_no_answer(alone, response):
    assert alone.grade([(response, "7")]) == [Outcome.NO_ANSWER]


def test_over_long_and_over_deep_answers_are_wrong_without_being_parsed(alone):
    deep = MAX_DEPTH + 1
    answers = ["1+" * MAX_ANSWER + "1", "9" * (MAX_ANSWER + 1), "(" * deep + "7" + ")" * deep]
    assert alone.compare([(answer, "\\sqrt{2}") for answer in answers]) == [Outcome.WRONG] * 3
    assert alone.compare([(answer, answer) for answer in answers]) == [Outcome.CORRECT] * 3


def test_enormous_numbers_are_wrong_without_being_computed(alone):
    answers = ["9^{9^{9^9}}", "10000000!", "2^{100000000}", "9^9^9^9"]
    assert alone.compare([(answer, "7") for answer in answers]) == [Outcome.WRONG] * 4


# --- graders --------------------------------------------------------------------------------------------------


def as_response(answer, verdict):
    return answer if "boxed" in answer or verdict == "no_answer" else boxed(answer)


@pytest.fixture(scope="module", params=["strict", "paper"])
def grader(request):
    with Grader(request.param) as grader:
        yield grader


def test_graders_say_what_the_golden_file_says(grader):
    rows = golden()
    assert len(rows) >= 200
    outcomes = grader.grade([(as_response(answer, row[0]), gold) for *row, gold, answer in rows])
    found = [(outcome.value, *row[2:]) for outcome, row in zip(outcomes, rows, strict=True)]
    expected = [(row[grader.kind == "paper"], *row[2:]) for row in rows]
    assert [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]] == []


def test_outcomes_depend_neither_on_order_nor_on_the_number_of_workers(grader):
    pairs = [(as_response(answer, row[0]), gold) for *row, gold, answer in golden()]
    outcomes = dict(zip(pairs, grader.grade(pairs), strict=True))
    random.Random(1).shuffle(pairs)
    with Grader(grader.kind, workers=3) as other:
        assert other.grade(pairs) == [outcomes[pair] for pair in pairs]


@given(st.integers(-99, 99), st.integers(2, 99), st.integers(2, 9), st.sampled_from([2, 3, 5, 7]))
@settings(max_examples=30, deadline=None)
def test_an_expression_equals_its_expanded_form_and_no_neighbour(grader, a, b, factor, root):
    gold = f"\\frac{{{a}+\\sqrt{{{root}}}}}{{{b}}}"
    same = f"\\dfrac{{{a * factor}+{factor}\\sqrt{{{root}}}}}{{{b * factor}}}"
    neighbour = f"\\frac{{{a + 1}+\\sqrt{{{root}}}}}{{{b}}}"
    assert grader.compare([(same, gold), (neighbour, gold)]) == [Outcome.CORRECT, Outcome.WRONG]


@given(st.text(max_size=30), st.sampled_from(["7", "\\frac{1}{2}", "(1,2)"]))
@settings(max_examples=40, deadline=None)
def test_every_response_has_an_outcome(grader, text, gold):
    texts = [text, boxed(text.replace("{", "").replace("}", ""))]
    assert all(isinstance(outcome, Outcome) for outcome in grader.grade([(text, gold) for text in texts]))


def test_a_batch_keeps_its_order_and_asks_about_each_pair_once(grader, monkeypatch):
    asked = []
    compare = grader.workers.compare
    monkeypatch.setattr(grader.workers, "compare", lambda requests: asked.extend(requests) or compare(requests))
    right, wrong = ("1+\\sqrt{13}", "\\sqrt{13}+1"), ("2+\\sqrt{13}", "\\sqrt{13}+1")
    expected = [Outcome.CORRECT, Outcome.WRONG, Outcome.NO_ANSWER, Outcome.CORRECT, Outcome.WRONG]
    assert grader.compare([right, wrong, (None, "7"), right, ("8", "7")]) == expected
    assert grader.compare([wrong, right]) == [Outcome.WRONG, Outcome.CORRECT]
    assert asked == [(*right, grader.kind), (*wrong, grader.kind)]


# --- outcome, reward, stage -----------------------------------------------------------------------------------


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


def test_numbers_are_graded_without_loading_sympy_or_starting_a_worker():
    program = (
        "import sys; from entropy_mechanism.rewards.math import Grader; grader = Grader(); "
        "print(*grader.grade([(r'\\boxed{07}', '7'), (r'\\boxed{\\frac12}', '0.5')]), grader.workers.processes, "
        "sorted({'sympy', 'math_verify', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "correct correct [] []"


def test_the_grade_stage_counts_outcomes_and_lets_spellings_vote_together(tmp_path):
    problems = [Problem("p", "made up", "One half?", "\\frac{1}{2}")]
    to_frame(problems).to_parquet(tmp_path / "problems.parquet")
    responses = ["\\boxed{\\dfrac12}", "\\boxed{3}", "\\boxed{3}", "\\boxed{0.5}", "\\boxed{\\frac{2}{4}}", "none"]
    samples = pd.DataFrame({"problem_id": "p", "decoding": "sampled", "sample": range(6), "response": responses})
    samples.to_parquet(tmp_path / "samples.parquet")
    output, results = tmp_path / "grades.parquet", tmp_path / "results"
    grade_samples(tmp_path / "samples.parquet", tmp_path / "problems.parquet", "strict", "key", output, results)
    grades = pd.read_parquet(output)
    assert grades["outcome"].tolist() == ["correct", "wrong", "wrong", "correct", "correct", "no_answer"]
    assert problem_scores(graded_samples(grades), "maj@6").tolist() == [1.0]
    (series,) = results.rglob("*.metrics.jsonl")
    logged = {name: value for line in series.open() for name, value in json.loads(line).items()}
    counts = {name: logged[f"count/{name}"] for name in ("correct", "wrong", "no_answer", "timeout", "error")}
    assert counts == {"correct": 3, "wrong": 2, "no_answer": 1, "timeout": 0, "error": 0}
    assert logged["outcome/correct"] == 0.5
    assert 0 <= logged["time/grade"] < 60
