"""Answers that are one plain number, read exactly, and when two numbers are the same answer."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<whole>{_DIGITS})?(?P<point>\.\d+)?"
    r"(?:(?:\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*(?P<power>[-+]?\d{1,4})\s*\}|(?P<digit>\d))"
    r"|[eE](?P<exponent>[-+]?\d{1,3})))?"
    r"|(?P<before>\d*\.\d*)\\(?:overline|bar|dot)\s*(?:\{(?P<repeated>\d+)\}|(?P<figure>\d))"
    r"|(?P<top>\d+)\s*/\s*(?P<bottom>\d+)"
    r"|\\frac\s*\{\s*(?P<over>[-+]?\d+)\s*\}\s*\{\s*(?P<under>[-+]?\d+)\s*\})\s*",
    re.ASCII,
)
_TOWER = re.compile(r"\d{1,9}(?:\s*\^\s*\{?\s*\d{1,9})+[\s}]*", re.ASCII)
_FACTORIAL = re.compile(r"(\d{1,12})\s*!+", re.ASCII)


@dataclass(frozen=True)
class Number:
    """A plain number: its exact value, and whether it was written as a decimal, which may be a rounded one."""

    exact: Fraction
    decimal: bool = False
    grouped: bool = False
    """Whether commas grouped its digits."""
    plain: str = ""
    """How it was written, without them."""


def read(text: str) -> Number | None:
    r"""The number that `text` is: 7, -1,234.50, 1/2, `\frac{1}{2}`, `0.\overline{3}`, 4.5e33; else None."""
    match = _NUMBER.fullmatch(text) if len(text) <= 1000 else None
    if match is None:
        return None
    part = match.groupdict()
    sign = -1 if part["sign"] == "-" else 1
    if part["top"] is not None or part["over"] is not None:
        top, bottom = int(part["top"] or part["over"]), int(part["bottom"] or part["under"])
        return Number(sign * Fraction(top, bottom)) if bottom else None
    if part["before"] is not None:
        fixed, repeated = part["before"], part["repeated"] or part["figure"]
        decimals = len(fixed.partition(".")[2])
        rest = Fraction(int(repeated), (10 ** len(repeated) - 1) * 10**decimals)
        return Number(sign * (Fraction("0" + fixed + "0") + rest))
    if part["whole"] is None and part["point"] is None:
        return None
    digits = (part["whole"] or "0").replace(",", "") + (part["point"] or "")
    power = int(part["power"] or part["digit"] or part["exponent"] or 0)
    value = sign * Fraction(digits) * Fraction(10) ** power
    return Number(value, part["point"] is not None, "," in (part["whole"] or ""), text.replace(",", ""))


def agree(a: Any, b: Any) -> bool:
    """Whether two real numbers, one of them at least a decimal, are the same answer. Fractions or mpmath numbers.

    They may differ by half of the sixth decimal, small ones by no more than one part in 10,000; or, which is the
    rounding of binary fractions, by one part in 10^12.
    """
    difference, size = abs(a - b), max(abs(a), abs(b))
    return difference * 10**12 <= size or (difference * 2 * 10**6 <= 1 and difference * 10**4 <= size)


def same(a: Number, b: Number) -> bool:
    """Whether two plain numbers are the same answer: exactly, or as `agree` says when one is a decimal."""
    return agree(a.exact, b.exact) if a.decimal or b.decimal else a.exact == b.exact


def is_enormous(text: str) -> bool:
    """Whether `text` is a power tower or factorial beyond every number of `read`, told without computing it."""
    factorial = _FACTORIAL.fullmatch(text)
    if factorial:
        return int(factorial[1]) >= 10_000  # 10,000! has 35,660 digits
    if not _TOWER.fullmatch(text):
        return False
    *bases, exponent = map(int, re.findall(r"\d+", text))
    while bases:
        base = bases.pop()
        if base >= 2 and exponent >= 100_000:  # 2 to this has 30,103 digits
            return all(lower >= 2 for lower in bases)
        if base > 1 and exponent * base.bit_length() > 400_000:
            return all(lower >= 2 for lower in bases)
        exponent = base**exponent
    return False
