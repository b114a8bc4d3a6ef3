r"""The string comparison inside the grader of the paper's code, for `grader: paper`.

Written from the known behaviour of the normaliser that came with the MATH data set (Hendrycks et al. 2021), which
later graders took over under the name `mathd`.
"""

import re

_DROPPED = re.compile(r"\n|\\!|\\left(?![a-zA-Z])|\\right(?![a-zA-Z])|\^\{\\circ\}|\^\\circ|\\\$|\\?%|\\\s")
_SHORT_FRACTION = re.compile(r"\\frac\s*(\{[^{}]*\}|[^{}\\\s])\s*(\{[^{}]*\}|[^{}\\\s])")


def mathd(text: str) -> str:
    r"""An answer as the MATH data set's normaliser leaves it; equal strings are equal answers to it.

    Drops line breaks, `\!`, `\left`, `\right`, degrees, currency and percent signs, a trailing `\text{ unit}`, a
    short left-hand side (`x =`) and all spaces; writes `\dfrac`, `\tfrac` and a/b of integers as `\frac{a}{b}`,
    `\frac12` and `\sqrt3` with braces, `.5` with a zero, and 0.5 as one half.
    """
    text = text.strip().removesuffix(".")
    text = _DROPPED.sub("", text.replace("\\\\", "\\")).replace("tfrac", "frac").replace("dfrac", "frac")
    if text.count("\\text{ ") == 1:
        text = text.split("\\text{ ")[0]
    text = re.sub(r"(^|[\s{])\.(?=\d)", r"\g<1>0.", text)
    left, equals, right = text.partition("=")
    if equals and "=" not in right and len(left.strip()) <= 2:
        text = right
    text = re.sub(r"\\sqrt\s*([^{\[\s])", r"\\sqrt{\1}", text)
    text = _SHORT_FRACTION.sub(lambda match: f"\\frac{_braced(match[1])}{_braced(match[2])}", text)
    text = text.replace(" ", "")
    if text == "0.5":
        return "\\frac{1}{2}"
    return re.sub(r"^(-?\d+)/(-?\d+)$", r"\\frac{\1}{\2}", text)


def _braced(argument: str) -> str:
    return argument if argument.startswith("{") else f"{{{argument}}}"
