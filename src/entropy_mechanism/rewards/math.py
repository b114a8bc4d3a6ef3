r"""Grading a mathematical answer: last balanced `\boxed{}`, then exact comparison, then math-verify."""

import functools
import logging
import re
from enum import StrEnum

from entropy_mechanism.rewards.boxed import last_boxed

MAX_ANSWER = 500
"""Characters of an answer at most; longer ones are wrong without being parsed."""
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


class Outcome(StrEnum):
    """What became of a response; only `correct` earns the reward."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    TIMEOUT = "timeout"
    ERROR = "error"


def grade(response: str, answer: str) -> Outcome:
    """Grade the final answer of `response` against the gold `answer`."""
    given = last_boxed(response)
    if not given:
        return Outcome.NO_ANSWER
    given, answer = (text.strip().removesuffix(".").strip() for text in (given, answer))
    if given == answer:
        return Outcome.CORRECT
    if len(given) > MAX_ANSWER:
        return Outcome.WRONG
    if _INTEGER.fullmatch(given) and _INTEGER.fullmatch(answer):
        return Outcome.CORRECT if int(given) == int(answer) else Outcome.WRONG
    return _verify(given, answer)


def reward(outcome: Outcome) -> float:
    """1 for a right answer, else 0: the verifiable reward of Eq. 1."""
    return float(outcome is Outcome.CORRECT)


@functools.lru_cache(maxsize=65536)
def _verify(given: str, answer: str) -> Outcome:
    """Ask math-verify whether two answers are equal; gold first, since the comparison is not symmetric.

    Both are handed over as one box each: given a whole response, math-verify merges neighbouring boxes.
    """
    from math_verify import parse, verify
    from math_verify.errors import TimeoutException

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    try:
        gold = parse(f"\\boxed{{{answer}}}", parsing_timeout=5, raise_on_error=True)
        prediction = parse(f"\\boxed{{{given}}}", parsing_timeout=5, raise_on_error=True)
        equal = verify(gold, prediction, timeout_seconds=5, raise_on_error=True)
    except TimeoutException:
        return Outcome.TIMEOUT
    except Exception:
        return Outcome.ERROR
    return Outcome.CORRECT if equal else Outcome.WRONG
