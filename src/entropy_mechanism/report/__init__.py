"""The report: one self-contained HTML page with claims and verdicts, what was run and what came out."""

from .claims import judge_all
from .numbers import Headlines, comparison, headlines
from .page import FigureEntry, Report, TableEntry, build, summary

__all__ = [
    "FigureEntry",
    "Headlines",
    "Report",
    "TableEntry",
    "build",
    "comparison",
    "headlines",
    "judge_all",
    "summary",
]
