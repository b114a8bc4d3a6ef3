"""The report: one self-contained HTML page with claims and verdicts, what was run and what came out."""

from .beside import Results, beside
from .claims import judge_all
from .numbers import Headlines, comparison, headlines
from .page import FigureEntry, Report, TableEntry, build, summary

__all__ = [
    "FigureEntry",
    "Headlines",
    "Report",
    "Results",
    "TableEntry",
    "beside",
    "build",
    "comparison",
    "headlines",
    "judge_all",
    "summary",
]
