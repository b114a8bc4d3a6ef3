"""What can become of a graded response, and its reward."""

from enum import StrEnum


class Outcome(StrEnum):
    """What became of a response; only `correct` earns the reward."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    TIMEOUT = "timeout"
    ERROR = "error"


def reward(outcome: Outcome) -> float:
    """1 for a right answer, else 0: the verifiable reward of Eq. 1."""
    return float(outcome is Outcome.CORRECT)
