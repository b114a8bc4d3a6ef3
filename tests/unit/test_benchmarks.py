"""The benchmarks' own arithmetic, and that docs/performance.md shows what was measured."""

import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import floor  # noqa: E402
import measure  # noqa: E402
import page  # noqa: E402


def counted(function):
    """Matrix products and attention that torch does."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    return counter.get_total_flops()


def test_the_floor_counts_the_operations_that_torch_counts_but_for_masked_attention():
    import torch
    from random_policies import random_policy

    from entropy_mechanism.shapes import Shape

    shape, length = Shape(2, 32, 2, 1, 64, 40), 50
    model = random_policy()
    model.set_attn_implementation("eager")  # that of CPUs is left out of torch's count
    done = counted(lambda: model(input_ids=torch.zeros(1, length, dtype=torch.long)))
    masked = shape.layers * 2 * shape.query_width * length**2  # torch counts the half above the diagonal too
    assert floor.forward_flops(shape, 0, length) + length * 2 * shape.head_parameters == done - masked


def test_reading_a_sequence_in_two_parts_takes_the_operations_of_reading_it_at_once():
    from entropy_mechanism.shapes import Shape

    shape = Shape(3, 64, 4, 2, 256, 312)
    parts = floor.forward_flops(shape, 0, 7) + floor.forward_flops(shape, 7, 20)
    assert parts == pytest.approx(floor.forward_flops(shape, 0, 20))


def test_the_floor_is_what_reading_prompts_once_takes_but_for_masked_attention(monkeypatch):
    from random_policies import random_policy

    from entropy_mechanism.rl import logprobs
    from entropy_mechanism.rl.batch import Sequences
    from entropy_mechanism.shapes import Shape

    monkeypatch.setattr(logprobs, "LEAST_SAVED", 0)
    shape, model = Shape(2, 32, 2, 1, 64, 40), random_policy()
    model.set_attn_implementation("eager")
    sequences = Sequences([[prompt] * 7 for prompt in (3, 4) for _ in range(4)], [[5] * 13] * 8)
    done = counted(lambda: logprobs.token_statistics(model, sequences))
    masked = shape.layers * 2 * shape.query_width * (2 * 7**2 + 8 * 12**2)
    once = done - masked
    phases = floor.step_flops(shape, floor.Step(2, 4, 7, 13))
    assert phases == pytest.approx({"sample": once, "logprob": once, "update": 3 * once})


def test_a_goal_is_met_on_its_own_side_of_the_limit():
    assert measure.Goal("", 4.0, 4, "x", at_least=True).met
    assert not measure.Goal("", 3.9, 4, "x", at_least=True).met
    assert measure.Goal("", 1.0, 1, "s").met
    assert not measure.Goal("", 1.1, 1, "s").met


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123456, "0.0123"), (1.0, "1.00"), (12.34, "12.3"), (1234.5, "1,234"), (8, "8"), (None, ""), ("a", "a")],
)
def test_numbers_have_three_digits(value, text):
    assert page.number(value) == text


def test_tables_go_between_their_marks_and_leave_the_rest():
    text = "before\n<!-- law -->\nold\n<!-- end -->\nbetween\n<!-- goals -->\nold\n<!-- end -->\nafter\n"
    found = {
        "date": "2026-01-02T03:04:05",
        "seconds": 7,
        "machine": {"processor": "P", "cores": 2, "gpu": None},
        "versions": {"torch": "1", "commit": "c"},
        "tables": {"": [{"a": 1.5, "b": None}]},
        "goals": [{"goal": "fast", "measured": 2.0, "limit": 1, "unit": "s", "at_least": False, "met": False}],
    }
    made = page.filled(text, {"law": found})
    assert "| a | b |\n| --- | --- |\n| 1.50 |  |\n" in made
    assert "| fast: at most 1 s | 2.00 s | **no** |" in made
    assert "old" not in made
    assert [line for line in made.splitlines() if line in ("before", "between", "after")] == [
        "before",
        "between",
        "after",
    ]
    assert page.filled(made, {"law": found}) == made
    with pytest.raises(ValueError, match="no mark <!-- speed -->"):
        page.filled(text, {"speed": found})


def test_the_page_shows_the_results_that_there_are():
    text = page.PAGE.read_text()
    assert page.filled(text, page.read()) == text


def test_every_topic_has_a_place_on_the_page():
    import suite

    assert {match["topic"] for match in page.MARK.finditer(page.PAGE.read_text())} == {*suite.TOPICS, "goals"}


def test_what_is_compared_with_is_no_requirement_of_the_project():
    def names(file):
        lines = (REPOSITORY / "requirements" / file).read_text().splitlines()
        return {line.split("==")[0].lower() for line in lines if line and not line.startswith("#")}

    assert names("bench.txt") == {"trl", "liger-kernel"}
    assert not names("bench.txt") & names("constraints.txt")
