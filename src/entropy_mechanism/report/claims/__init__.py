"""The claims of the paper, the rules that judge them, and the verdicts: frames in, verdicts out."""

from collections.abc import Collection, Mapping

import pandas as pd

from . import across, dynamics, law, methods, referees, sweeps
from .criteria import RULES, VERDICTS, Claim, Criterion, Finding, Judged, judge
from .evidence import Estimate, Evidence, NotMeasured

CLAIMS: tuple[Claim, ...] = (
    *law.CLAIMS,
    *across.CLAIMS,
    *dynamics.CLAIMS,
    *sweeps.CLAIMS,
    *methods.CLAIMS,
    *referees.CLAIMS,
)
"""All claims in the order of the paper, then those that its referees asked about."""


def judge_all(frames: Mapping[str, pd.DataFrame], shown: Mapping[str, Collection[str]]) -> tuple[Judged, ...]:
    """Judge every claim by the analysis frames (by kind) and the runs that each figure or table shows."""
    return judge(CLAIMS, Evidence(frames, shown))


__all__ = [
    "CLAIMS",
    "RULES",
    "VERDICTS",
    "Claim",
    "Criterion",
    "Estimate",
    "Evidence",
    "Finding",
    "Judged",
    "NotMeasured",
    "judge",
    "judge_all",
]
