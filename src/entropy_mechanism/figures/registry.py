"""All figures and tables by name, with the analysis files that each reads.

Light to import: planning needs names and inputs only; `load` brings in matplotlib with the module asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from ..config import FigureRuns, chosen
from ..own_code import module as own_module


@dataclass(frozen=True)
class Entry:
    """A module of this package and the analysis files it reads (`curves` is analysis/<run>/curves.parquet)."""

    module: str
    inputs: tuple[str, ...]
    sha256: str = ""
    """Of a figure of the experiment's own, whose `module` is the path of a file."""


FIGURES = {
    "fig01": Entry("fig01", ("curves", "law", "runs")),
    "fig02": Entry("fig02", ("consumption", "runs")),
    "fig03": Entry("fig03", ("curves", "law", "runs")),
    "fig04": Entry("fig04", ("curves", "law", "runs")),
    "fig05": Entry("fig05", ("forecasts", "forecast_points", "runs")),
    "fig06": Entry("fig06", ("curves", "law", "runs", "common_law")),
    "fig07": Entry("fig07", ("size_law", "runs", "published_size_law")),
    "fig08": Entry("fig08", ("dynamics", "runs")),
    "fig09": Entry("fig09", ("curves", "runs")),
    "fig10": Entry("fig10", ("curves", "runs")),
    "fig11": Entry("fig11", ("curves", "runs")),
    "fig12": Entry("fig12", ("curves", "runs")),
    "fig13": Entry("fig13", ("curves", "law", "runs")),
    "fig14": Entry("fig14", ("curves", "law", "runs")),
    "ceiling": Entry("ceiling", ("curves", "ceiling", "runs", "published_ceiling")),
    "theory": Entry("theory", ("tabular", "tabular_left_out", "counterexamples", "counterexample_paths")),
    "entropy_change": Entry("entropy_change", ("entropy_change", "dynamics_summary", "curves", "runs")),
}
TABLES = {
    "table1": Entry("table1", ("token_covariances", "runs")),
    "table2": Entry("table2", ("scores", "runs")),
    "selection": Entry("selection", ("curves", "scores", "runs")),
    "comparison": Entry("comparison", ("comparison", "runs")),
    "forms": Entry("forms", ("forms", "runs", "published_forms")),
    "forecasts": Entry("forecasts", ("forecasts", "runs", "published_forecasts")),
    "common_law": Entry("common_law", ("common_law", "runs")),
    "ceiling_test": Entry("ceiling_test", ("ceiling", "runs", "published_ceiling")),
    "covariance_grid": Entry("covariance_grid", ("dynamics_summary", "runs")),
}


OWN: dict[str, Entry] = {}
"""Figures that an experiment brings with it."""


def adopt(figures: Mapping[str, FigureRuns]) -> None:
    """Add the figures of an experiment's own to those that `entry` and `load` know."""
    for name, figure in figures.items():
        if figure.code:
            OWN[name] = Entry(figure.code, tuple(figure.inputs or ()), figure.sha256 or "")


def entry(name: str) -> Entry:
    """The entry of a figure or table. Raises ConfigError that lists the known names."""
    found: Entry = chosen("figure or table", name, FIGURES | TABLES | OWN)
    return found


def load(name: str) -> ModuleType:
    """Import a figure's module (TITLE, CAPTION, data, draw) or a table's (…, table, display)."""
    found = entry(name)
    return (
        own_module(found.module, found.sha256) if found.sha256 else import_module(f"{__package__}.{found.module}")
    )
