"""The report: one self-contained HTML page with what was run, what came out and how it compares with the paper."""

from .numbers import Headlines, comparison, headlines
from .page import FigureEntry, Report, TableEntry, build

__all__ = ["FigureEntry", "Headlines", "Report", "TableEntry", "build", "comparison", "headlines"]
