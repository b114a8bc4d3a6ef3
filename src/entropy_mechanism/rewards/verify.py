r"""Whether two answers are mathematically equal, by math-verify with numbers compared exactly. Slow, and may hang.

Imported by the worker processes alone: sympy takes its time, and answers are written by a policy, so that nothing
here is safe to call without a deadline.
"""

import logging
import random
import re

import sympy
from latex2sympy2_extended import latex2sympy2
from math_verify import ExprExtractionConfig, LatexExtractionConfig, grader, parse, verify
from mpmath import mp
from sympy import Basic, Expr, Float, MatrixBase, Rational, UnevaluatedExpr
from sympy.core import random as sympy_random

from entropy_mechanism.rewards import numbers
from entropy_mechanism.rewards.spelling import normalised, sides

FIRST_DIGITS, MOST_DIGITS = 30, 2000
_SCIENTIFIC = re.compile(r"(?<![\w.\\}])(\d+(?:\.\d+)?)[eE]([-+]?\d{1,4})(?![\w.])")
_HUNDREDTH = UnevaluatedExpr(Rational(1, 100))
_math_verify_numeric_eq = grader.sympy_numeric_eq


def equal(given: str, gold: str, kind: str) -> bool:
    """Whether the answer `given` is the answer `gold`, as the grader `kind` (`strict` or `paper`) sees it.

    The result depends on the two texts alone: whatever sympy draws at random is drawn from a fixed seed.
    """
    random.seed(0)
    sympy_random.seed(0)
    if kind == "paper":
        grader.sympy_numeric_eq = _math_verify_numeric_eq
        return _verified(given, gold) or _equal_forms(given, gold)
    grader.sympy_numeric_eq = _numeric_eq
    return any(_verified(a, b, strict=True) for a, b in _readings(normalised(given), normalised(gold)))


def warm_up() -> None:
    """Load what the first comparison would load. Raises RuntimeError where math-verify does not work."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)
    for kind in ("paper", "strict"):
        if not equal(r"\frac{1}{2}+x", r"x+0.5", kind) or equal(r"\sqrt{2}+1", r"\frac{x^2}{3}", kind):
            raise RuntimeError(f"math-verify does not tell equal answers from others ({latex2sympy2.__file__})")


def _readings(given: str, gold: str) -> list[tuple[str, str]]:
    """The pairs to compare; the answer is right when one of them is equal.

    `2e-1` is read as 0.2 and as 2e - 1, in both answers alike. An answer that only defines a name stands for its
    right-hand side, unless the other defines another name.
    """
    pairs = [(given, gold)]
    (given_name, given_value), (gold_name, gold_value) = sides(given), sides(gold)
    if (given_name or gold_name) and (given_name is None or gold_name is None or given_name == gold_name):
        pairs.append((given_value, gold_value))
    scientific = [(_with_powers(a), _with_powers(b)) for a, b in pairs]
    return list(dict.fromkeys([*scientific, *pairs]))


def _with_powers(text: str) -> str:
    r"""`2e-1` as `2\times10^{-1}`."""
    return _SCIENTIFIC.sub(r"\1\\times10^{\2}", text)


def _parsed(text: str, whole: bool = False) -> list[Basic | MatrixBase | str]:
    """The answer as math-verify reads it; unless `whole`, a text that is no LaTeX stands for its last number."""
    how = (LatexExtractionConfig(),) if whole else (LatexExtractionConfig(), ExprExtractionConfig())
    # one box: neighbouring ones would be merged
    return parse(f"\\boxed{{{text}}}", extraction_config=how, parsing_timeout=None)


def _verified(given: str, gold: str, strict: bool = False) -> bool:
    return verify(  # gold first: not symmetric
        _parsed(gold, strict), _parsed(given, strict), timeout_seconds=None, allow_set_relation_comp=strict
    )


def _equal_forms(given: str, gold: str) -> bool:
    """Whether the difference of the parsed answers simplifies to zero."""
    a, b = ([form for form in _parsed(text) if isinstance(form, Expr)] for text in (given, gold))
    try:
        return bool(a and b and sympy.simplify(a[0] - b[0]) == 0)
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return False


def _numeric_eq(a: Basic | MatrixBase, b: Basic | MatrixBase, float_rounding: int, numeric_precision: int) -> bool:
    """Takes the place of math-verify's comparison of numbers, within sets, tuples and equations too.

    That one rounds to 6 decimals, or to 15 digits after the point, so that to it 1/2004! is 1/2006!, and
    2.55e-10 is 2.56e-10. Here exact numbers are equal when they are, and decimals as `numbers.agree` says.
    """
    if isinstance(a, MatrixBase) or isinstance(b, MatrixBase):
        return _math_verify_numeric_eq(a, b, float_rounding, numeric_precision)  # comes back for the elements
    if not (_is_number(a) and _is_number(b)):
        decimal = bool(a.atoms(Float) | b.atoms(Float))
        return decimal and _math_verify_numeric_eq(a, b, float_rounding, numeric_precision)
    percents = [number.args[0] for number in (a, b) if _is_percent(number)]
    if len(percents) == 1:  # 50\% is 0.5 and also 50
        bare = [percents[0] if _is_percent(number) else number for number in (a, b)]
        if _numbers_equal(*bare):
            return True
    return _numbers_equal(a, b)


def _is_number(value: Basic | MatrixBase) -> bool:
    return isinstance(value, Expr) and value.is_number and value.is_infinite is not True


def _is_percent(value: Expr) -> bool:
    return value.is_Mul and len(value.args) == 2 and value.args[1] == _HUNDREDTH


def _numbers_equal(a: Expr, b: Expr) -> bool:
    decimal = bool(a.atoms(Float) | b.atoms(Float))
    if not decimal and isinstance(a, Rational) and isinstance(b, Rational):
        return a == b
    if not _close(a, b, FIRST_DIGITS, decimal):
        return False
    return decimal or _exact_equal(a, b)


def _exact_equal(a: Expr, b: Expr) -> bool:
    """Whether numbers that agree to many digits are equal: as fractions, or else to `MOST_DIGITS`."""
    try:
        a, b = a.doit(), b.doit()
        if isinstance(a, Rational) and isinstance(b, Rational):
            return a == b
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        pass
    return _close(a, b, MOST_DIGITS, decimal=False)


def _close(a: Expr, b: Expr, digits: int, decimal: bool) -> bool:
    """Whether two numbers agree to nearly `digits` digits, or as decimals do."""
    try:
        x, y = (number.evalf(digits, maxn=10 * digits) for number in (a, b))
        with mp.workdps(digits + 10):
            (x_real, x_imaginary), (y_real, y_imaginary) = (
                tuple(part._to_mpmath(mp.prec) for part in value.as_real_imag()) for value in (x, y)
            )
            if decimal and x_imaginary == y_imaginary == 0:
                return bool(numbers.agree(x_real, y_real))
            x, y = mp.mpc(x_real, x_imaginary), mp.mpc(y_real, y_imaginary)
            return bool(abs(x - y) <= max(abs(x), abs(y)) * mp.mpf(10) ** (5 - digits))
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return False
