"""Values that cross between a program and its tests: plain ones arrive unchanged, all others are refused."""

import json

from hypothesis import given
from hypothesis import strategies as st

from entropy_mechanism.rewards.inside import values

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
