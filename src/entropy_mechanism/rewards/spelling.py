r"""One spelling for answers that mean the same: `\dfrac12` and `\frac{1}{2}`, `29,\!322` and 29322, `7.` and 7.

Only rewrites that keep the meaning of a final answer; what needs a parser is left to math-verify.
"""

import re
from collections.abc import Callable
from fractions import Fraction

from entropy_mechanism.rewards import numbers

_FULL_WIDTH = {chr(code + 0xFEE0): chr(code) for code in range(ord("!"), ord("~") + 1)}
_SIGNS = str.maketrans(
    {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "°": r"^\circ", "π": r"\pi ", "∞": r"\infty ",
     "≤": r"\le ", "≥": r"\ge ", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "∅": r"\emptyset ",
     "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\n": " ", "\t": " "} | _FULL_WIDTH
)  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_REWRITES: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+"), lambda match: f"^{{{match[0].translate(_RAISED)}}}"),
    # the whole number stands below the sign √, but only the first digit below \sqrt
    (re.compile(r"√\s*(?:(\d+(?:\.\d+)?|[a-zA-Z])|[({]([^(){}]*)[)}])"), r"\\sqrt{\1\2}"),
    (re.compile(r"\\varnothing(?![a-zA-Z])"), r"\\emptyset"),
    # a comma or thin space that groups digits by three, spelled so that it cannot separate the items of a list
    (re.compile(r"(?<=\d)(?:,\\!|\{,\}|\\,)\s*(?=\d{3}(?!\d))"), ""),
    (re.compile(r"\\(?:left|right)\s*\."), ""),
    (re.compile(r"\\(?:left|right|displaystyle|bigl|bigr|big)(?![a-zA-Z])"), ""),
    (re.compile(r"(?<!\\)\\[()\[\]]"), ""),
    (re.compile(r"\\?\$"), ""),
    (re.compile(r"(?<!\\)\\[,;:! ]|~|\\q?quad(?![a-zA-Z])"), " "),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d)\s*(?=[\d{])"), r"\\frac{\1}"),
    (re.compile(r"\\frac\s*(\{[^{}]*\})\s*(\d)"), r"\\frac\1{\2}"),
    (re.compile(r"\\sqrt\s*(\d)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\w\\.])(?:np|numpy|math|sympy)\.(arc)?(sin|cos|tan)\b"), r"\\\1\2"),
    (re.compile(r"(?<![\w\\.])(?:np|numpy|math|sympy)\.(?:log|ln)\b"), r"\\ln"),
    (re.compile(r"(?<![\w\\.])(?:np|numpy|math|sympy)\.pi\b"), r"\\pi"),
    (re.compile(r"(?<![\w\\.])(?:np|numpy|math|sympy)\.(sqrt|exp)\b"), r"\1"),
    # a point after the last digit: -1./3 is -1/3; 1.\overline{3} and 1... are left alone
    (re.compile(r"(?<=\d)\.(?=\s*(?:[-+*/)}\],^]|\\(?:times|cdot|text|mathrm)(?![a-zA-Z])))"), ""),
    (re.compile(r"^([-+]?\d+)\s+(\d+)/(\d+)$"), r"\1\\frac{\2}{\3}"),
    (re.compile(r"\s+"), " "),
]
_END = re.compile(r"(?:\s|\\(?![a-zA-Z{}\[\]()|%])|(?<!\.)\.(?!\.))+$")
_DEGREES = re.compile(r"(?<=[\d})])\s*(?:\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degrees?)\s*$")
_UNIT = re.compile(
    r"(?<=[\d}])\s*\\(?:text|mathrm|mbox|textrm)\s*\{(?!\s*(?:hundred|thousand|million|billion|trillion|percent|"
    r"dozen|and|or)\b)[^{}]*\}(?:\s*\^\s*\{?\s*[-+]?\d\s*\}?)?$"
)
_SPACE = re.compile(r"(?<![a-zA-Z\d]) | (?![a-zA-Z\d])")
"""A space between what cannot run together: `\\pi r` and `1 2` keep theirs."""
_NAME = r"(?:\\(?:text|mathrm|operatorname)\{[\w ]+\}|\\[a-zA-Z]+|[a-zA-Z])"
_SUBSCRIPT = r"(?:_(?:\w|\\[a-zA-Z]+|\{[^{}=]*\}))?'*"
_LEFT_SIDE = re.compile(
    rf"\s*(?:\\frac\{{d{_NAME}{_SUBSCRIPT}\}}\{{d{_NAME}\}}|{_NAME}{_SUBSCRIPT})\s*(?:\([a-zA-Z, ]*\))?\s*"
)


def normalised(text: str) -> str:
    """The answer in one spelling; equal strings mean equal answers. Takes time linear in the length."""
    text = text.strip().translate(_SIGNS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = _DEGREES.sub("", _END.sub("", text))
    value = numbers.read(text)
    return text.strip() if value is None or not value.grouped else value.plain


def canonical(text: str) -> str:
    r"""The answer as a majority vote counts it: `\frac{2}{4}`, 1/2 and 0.5 are one, `10\text{ cm}` is 10.

    Fractions are reduced only where the whole answer is one plain number.
    """
    text = _UNIT.sub("", normalised(text))
    value = numbers.read(text)
    return _SPACE.sub("", text).strip() if value is None else _written(value.exact)


def _written(value: Fraction) -> str:
    """A fraction, in hexadecimal where it has more digits than Python writes in decimal (4,300)."""
    top, bottom = value.as_integer_ratio()
    return str(value) if max(top.bit_length(), bottom.bit_length()) < 14_000 else f"{top:#x}/{bottom:#x}"


def sides(text: str) -> tuple[str | None, str]:
    r"""The name that an answer defines and what it says about it: `y=2x` is (y, 2x), `\frac{dM}{dt}=kM` likewise.

    The name is None, and the answer whole, when it defines nothing or has several relations.
    """
    left, equals, right = text.partition("=")
    if not equals or "=" in right or not right.strip() or not _LEFT_SIDE.fullmatch(left):
        return None, text
    return re.sub(r"[\\{}\s]|text|mathrm|operatorname", "", left), right.strip()
