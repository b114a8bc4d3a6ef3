"""From estimates to a verdict, its certainty and its words."""

import math

import pytest

from entropy_mechanism.report.claims import Claim, Criterion, Estimate, Evidence, judge
from entropy_mechanism.report.claims.criteria import (
    AGREES,
    CLEAR,
    DISAGREES,
    GAIN,
    IN_PART,
    LIKELY,
    NOT_MEASURED,
    OPEN,
    PERCENT,
    PLAIN,
    VERDICTS,
    above,
    at_least,
    at_most,
    below,
    between,
)
from entropy_mechanism.report.claims.evidence import NotMeasured


def claim_of(*estimates, bound=None):
    def measured(estimate):
        def measure(_):
            if estimate is None:
                raise NotMeasured("no such run")
            return estimate

        return measure

    bound = bound or above(0)
    criteria = tuple(Criterion(f"c{i}", bound, measured(entry)) for i, entry in enumerate(estimates))
    (judged,) = judge([Claim("key", "statement", "source", criteria)], Evidence({}, {}))
    return judged


YES, NO = Estimate(1.0, 0.5, 1.5, 3, 3), Estimate(-1.0, -1.5, -0.5, 3, 3)
WIDE, BARE, EXACT = Estimate(1.0, -1.0, 3.0, 3, 3), Estimate(1.0, runs=3, seeds=3), Estimate(1.0, exact=True)


@pytest.mark.parametrize(
    ("estimates", "verdict", "certainty"),
    [
        ((YES, YES), AGREES, CLEAR),
        ((YES, NO), IN_PART, CLEAR),
        ((NO, NO), DISAGREES, CLEAR),
        ((YES, None), IN_PART, OPEN),
        ((NO, None), DISAGREES, OPEN),
        ((None, None), NOT_MEASURED, ""),
        ((YES, WIDE), AGREES, OPEN),
        ((YES, BARE), AGREES, OPEN),
        ((YES, EXACT), AGREES, CLEAR),
        ((EXACT,), AGREES, CLEAR),
        ((Estimate(1.0, 0.5, 1.5, 2, 2),), AGREES, LIKELY),
        ((Estimate(math.nan),), NOT_MEASURED, ""),
    ],
)
def test_verdict_and_certainty_follow_the_rules(estimates, verdict, certainty):
    judged = claim_of(*estimates)
    assert (judged.verdict, judged.certainty) == (verdict, certainty)


def test_bounds_and_their_words():
    assert above(0).holds(0.1)
    assert not above(0).holds(0)
    assert at_least(0).holds(0)
    assert not below(1).holds(1)
    assert between(1, 2).holds(2)
    assert above(0).decided(0.1, 0.2)
    assert above(0).decided(-0.2, 0)
    assert not above(0).decided(-0.1, 0.2)
    assert not between(1, 2).decided(1.5, 2.5)
    assert between(1, 2).decided(2.1, 2.5)
    assert not at_most(1).decided(math.nan, math.nan)
    assert [bound.text(PERCENT) for bound in (at_least(0.5), at_most(0.5), between(0.1, 0.2))] == [
        "at least 50 %",
        "at most 50 %",
        "between 10 and 20 %",
    ]
    assert above(0).text(PLAIN) == "above 0"


def test_numbers_are_written_for_readers():
    assert GAIN.text(-0.0123) == "−1.2 points"
    assert GAIN.text(0.02) == "+2.0 points"
    assert PLAIN.text(12345.6) == "12346"
    assert PLAIN.text(0.0000123) == "1e−05"
    assert PERCENT.text(math.nan) == "–"
    assert claim_of(YES).findings[0].obtained == "1 [0.5, 1.5]"
    assert claim_of(BARE).findings[0].obtained == "1"
    assert VERDICTS[-1] == "not measured in this experiment"
