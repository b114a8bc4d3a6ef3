"""Values as JSON, for two processes of which one is not to be trusted: what is read can only be plain.

Numbers, text, bytes, the standard library's containers, dates, fractions, decimals and numpy arrays are copied;
subclasses of numbers and text are copied as the number or text they are. All else is left to the caller.
"""

import collections
import datetime
import decimal
import enum
import fractions
import sys
from collections.abc import Callable
from typing import Any

EXACT = (type(None), bool, int, float, str, bytes, list, tuple, dict)

_PARTS: dict[type, Callable[[Any], tuple]] = {
    list: lambda v: ("list", *v),
    tuple: lambda v: ("tuple", *v),
    set: lambda v: ("set", *v),
    frozenset: lambda v: ("frozenset", *v),
    dict: lambda v: ("dict", *v.items()),
    collections.defaultdict: lambda v: ("dict", *v.items()),
    collections.OrderedDict: lambda v: ("ordered", *v.items()),
    collections.Counter: lambda v: ("counter", *v.items()),
    collections.deque: lambda v: ("deque", v.maxlen, *v),
    complex: lambda v: ("complex", v.real, v.imag),
    range: lambda v: ("range", v.start, v.stop, v.step),
    slice: lambda v: ("slice", v.start, v.stop, v.step),
    fractions.Fraction: lambda v: ("fraction", v.numerator, v.denominator),
    decimal.Decimal: lambda v: ("decimal", str(v)),
    datetime.datetime: lambda v: ("datetime", v.isoformat()),
    datetime.date: lambda v: ("date", v.isoformat()),
    datetime.time: lambda v: ("time", v.isoformat()),
    datetime.timedelta: lambda v: ("timedelta", v.days, v.seconds, v.microseconds),
}
_MAKERS: dict[str, Callable] = {
    "list": lambda *items: list(items),
    "tuple": lambda *items: items,
    "set": lambda *items: set(items),
    "frozenset": lambda *items: frozenset(items),
    "dict": lambda *pairs: dict(pairs),
    "ordered": lambda *pairs: collections.OrderedDict(pairs),
    "counter": lambda *pairs: collections.Counter(dict(pairs)),
    "deque": lambda size, *items: collections.deque(items, size),
    "complex": complex,
    "range": range,
    "slice": slice,
    "fraction": fractions.Fraction,
    "decimal": decimal.Decimal,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": datetime.timedelta,
}
CONTAINERS: tuple[type[Any], ...] = (tuple, list, dict, set, frozenset)
_READ: dict[type[Any], Callable[[Any], Any]] = {int: int.__int__, float: float.__float__, str: str.__str__}


def encode(value: Any, other: Callable[[Any], list]) -> Any:
    """A value for `json.dumps`; `other` gives a tagged list for what cannot be copied."""
    kind = type(value)
    if value is None or kind in (bool, float, str):
        return value
    if kind is int:
        return value if -(2**62) < value < 2**62 else ["int", hex(value)]
    if kind in (bytes, bytearray):
        return [kind.__name__, value.hex()]
    if kind in _PARTS:
        return [part if n == 0 else encode(part, other) for n, part in enumerate(_PARTS[kind](value))]
    if "numpy" in sys.modules and isinstance(value, (sys.modules["numpy"].ndarray, sys.modules["numpy"].generic)):
        if value.dtype.kind in "biufcSU":
            plain = encode(value.tolist(), other)
            return plain if value.ndim == 0 else ["array", plain, value.dtype.str]
    elif isinstance(value, (int, float, str)) and not isinstance(value, enum.Enum):
        return encode(content(value), other)
    return other(value)


def decode(node: Any, other: Callable[[str, list], Any]) -> Any:
    """The value of what `encode` made; `other` gets tag and parts that stand for what was not copied.

    Raises ValueError or TypeError for anything `encode` does not make.
    """
    if not isinstance(node, list):
        if isinstance(node, dict):
            raise ValueError("an object of JSON stands for no value")
        return node
    tag, *parts = node
    if tag == "int":
        return int(parts[0], 16)
    if tag in ("bytes", "bytearray"):
        data = bytes.fromhex(parts[0])
        return data if tag == "bytes" else bytearray(data)
    if tag == "array":
        return _array(decode(parts[0], other), parts[1])
    if tag in _MAKERS:
        return _MAKERS[tag](*(decode(part, other) for part in parts))
    return other(tag, parts)


def content(value: Any) -> Any:
    """The plain value underneath an object of a plain type's subclass; raises TypeError for any other object.

    Read by the plain type's own methods, whatever the subclass makes of them.
    """
    for kind in CONTAINERS:
        if isinstance(value, kind):
            return dict(dict.items(value)) if kind is dict else kind(kind.__iter__(value))
    for kind, read in _READ.items():
        if isinstance(value, kind):
            return read(value)
    raise TypeError(f"{type(value).__name__} is no plain value")


def _array(values: Any, kind: str) -> Any:
    import numpy

    if kind.lstrip("<>|=")[:1] not in tuple("biufcSU"):
        raise ValueError(f"arrays of {kind} are not copied")
    return numpy.array(values, dtype=kind)
