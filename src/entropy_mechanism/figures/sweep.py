"""Runs that differ in one coefficient, and their entropy and accuracy over training (Figs 9, 10 and 12)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from . import panels, series, style

QUANTITIES = {"entropy": (style.ENTROPY, 1, style.ENTROPY_NAME), "accuracy": (style.ACCURACY, 100, "Accuracy (%)")}
SECTIONS = ("advantage", "objective", "regularisation")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Sweep:
    """A coefficient of `run.yaml`."""

    section: str
    """Which section of a run's settings it is in: objective or regularisation."""
    key: str
    """Its name there."""
    title: str
    """How legends call it."""
    objective: str | None = None
    """Only runs with this objective."""


def settings_of(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with the sections of their settings as dictionaries; without those whose settings are not known."""
    runs = series.need({"runs": runs}, "runs", "run", "model", "train_set", "method", *SECTIONS)
    runs = runs.dropna(subset=list(SECTIONS))
    return runs.assign(**{name: [json.loads(text) for text in runs[name]] for name in SECTIONS})


def runs_of(frames: style.Frames, sweep: Sweep) -> pd.DataFrame:
    """The runs of a sweep: run, model, train_set and `coefficient`, lowest first.

    They share everything but the coefficient: model, training set and all other settings that `runs` knows. Of
    several such groups, the one with most coefficients above 0 is taken, then the one with most runs, then the
    larger model. No rows when there is no coefficient above 0.
    """
    runs = settings_of(frames.get("runs", pd.DataFrame()))
    other = [name for name in ("aggregation", "learning_rate", "updates_per_rollout") if name in runs]
    rows = []
    for run in runs.to_dict("records"):
        if sweep.objective and run["objective"].get("name") != sweep.objective:
            continue
        sections = {name: dict(run[name]) for name in SECTIONS}
        coefficient = float(sections[sweep.section].pop(sweep.key, 0.0))
        objective, regularisation = sections["objective"], sections["regularisation"]
        if objective.pop("unit", "fraction") == "percent":  # shares of tokens in one unit
            if sweep.key == "fraction":
                coefficient /= 100
            else:
                objective["fraction"] /= 100
        estimator = regularisation.pop("kl_estimator", None)
        used = coefficient if sweep.key == "reference_kl" else regularisation.get("reference_kl", 0)
        alike = json.dumps([sections, *(run[name] for name in other)], sort_keys=True)
        estimator = estimator if used else ""
        identity = {name: run[name] for name in ("run", "model", "train_set")}
        rows.append(identity | {"coefficient": coefficient, "alike": alike, "estimator": estimator})
    found = pd.DataFrame(rows, columns=["run", "model", "train_set", "coefficient", "alike", "estimator"])
    return _largest_group(found, frames)[["run", "model", "train_set", "coefficient"]]


def _largest_group(found: pd.DataFrame, frames: style.Frames) -> pd.DataFrame:
    """The rows of one group; runs with coefficient 0 have no estimator and belong to the group of each."""
    order = style.model_order(found["model"], series.need(frames, "runs", "model", "non_embedding_parameters"))
    best, rank = found.iloc[:0], (0, 0, -1)
    for (model, _, _), alike in found.groupby(["model", "train_set", "alike"], sort=False):
        zero = alike["coefficient"] == 0
        for _, used in alike[~zero].groupby("estimator", sort=False):
            group = pd.concat([alike[zero], used]) if zero.any() else used
            here = (used["coefficient"].nunique(), len(group), order.index(model))
            if here > rank:
                best, rank = group, here
    return best.sort_values("coefficient", kind="stable")


def rows(frames: style.Frames, sweep: Sweep, column: str) -> pd.DataFrame:
    """Lines of a sweep: panel `<column> / entropy` and `… / accuracy` (percent); a series is named by its value.

    In the sweep of an objective, and where no run has coefficient 0, series `GRPO` holds the GRPO runs of the same
    model and training set.
    """
    chosen = runs_of(frames, sweep)
    if chosen.empty:
        return style.stack([])
    groups = {f"{value:g}": list(group["run"]) for value, group in chosen.groupby("coefficient")}
    if sweep.objective or chosen["coefficient"].min() > 0:
        runs = series.need(frames, "runs", "run", "model", "train_set", "method")
        same = (runs["model"] == chosen["model"].iloc[0]) & (runs["train_set"] == chosen["train_set"].iloc[0])
        baseline = style.of_method(runs[same])["run"]
        groups = ({"GRPO": list(baseline)} if len(baseline) else {}) | groups
    parts = []
    for name, members in groups.items():
        for quantity, (measure, unit, y_name) in QUANTITIES.items():
            curves = series.measured(frames, "curves", measure)
            curves = curves[curves["run"].isin(members)]
            parts.append(
                series.lines(curves, measure, unit, panel=f"{column} / {quantity}", series=name, y_name=y_name)
            )
    return style.stack(parts)


def looks(names: Sequence[str]) -> dict[str, style.Look]:
    """Looks of a sweep's series in order of the coefficient: GRPO, or else 0, black, then dark to bright."""
    baseline = "GRPO" if "GRPO" in names else "0"
    above = [name for name in names if name != baseline]
    found = {name: style.Look(name, style.METHODS["grpo"].colour, "", (0, (4, 1.2))) for name in names}
    shades = matplotlib.colormaps["viridis"]([0.05 + 0.83 * i / max(1, len(above) - 1) for i in range(len(above))])
    for i, (name, shade) in enumerate(zip(above, shades, strict=True)):
        found[name] = style.Look(name, to_hex(shade), _MARKERS[i % len(_MARKERS)])
    return found


def draw_panel(axes: Axes, drawn: pd.DataFrame, known: dict[str, style.Look]) -> None:
    """One panel of `rows`."""
    for i, (name, look) in enumerate(known.items()):
        curve = style.by(drawn, series=name)
        if curve.empty:
            continue
        style.band(axes, curve, look.colour)
        axes.plot(
            curve["x"],
            curve["y"],
            color=look.colour,
            linestyle=look.dashes,
            marker=look.marker,
            markevery=(0.02 + 0.04 * (i % 5), 0.2),  # sparse, shifted markers tell lines apart without colour
            label=look.label,
            zorder=2 if look.marker else 3,
        )
    axes.margins(y=0.08)


def draw(drawn: pd.DataFrame, columns: dict[str, tuple[str, Sweep]], missing: str, model: str) -> Figure:
    """A column of panels per sweep, entropy above accuracy; `columns`: heading and sweep by name."""
    if drawn.empty:
        return panels.empty_figure(missing)
    figure = Figure(figsize=(style.ONE_COLUMN, 3.9 if len(columns) == 1 else 4.1))
    grid = figure.subplots(2, len(columns), squeeze=False, sharex="col", sharey="row")
    for position, (name, (heading, entry)) in enumerate(columns.items()):
        here = drawn[drawn["panel"].str.startswith(f"{name} / ")]
        known = looks(list(dict.fromkeys(here["series"])))
        for axes, quantity in zip(grid[:, position], QUANTITIES, strict=True):
            panel = style.by(here, panel=f"{name} / {quantity}")
            if panel.empty:
                style.message(axes, "not measured")
                continue
            draw_panel(axes, panel, known)
            if quantity == "entropy":  # the columns share the axis
                panels.log_entropy(axes, drawn[drawn["panel"].str.endswith(" / entropy")])
            if not any(
                other.axison and other.get_ylabel() for other in axes.get_shared_y_axes().get_siblings(axes)
            ):
                axes.set_ylabel(QUANTITIES[quantity][2])
                axes.tick_params(labelleft=True)
        grid[1, position].set_xlabel(style.GRADIENT_STEPS)
        handles = [axes.get_legend_handles_labels()[0] for axes in grid[:, position]]
        panels.legend_above(
            grid[0, position], ", ".join(filter(None, (heading, entry.title))), max(handles, key=len)
        )
    figure.suptitle(model, fontsize=7.5)
    return figure


def model_of(drawn: pd.DataFrame, frames: style.Frames) -> str:
    """Display name of the model whose runs are drawn; several, where sweeps are of different models."""
    runs = series.need(frames, "runs", "run", "model").set_index("run")["model"]
    names = {run for text in drawn["run"] for run in text.split()}
    return ", ".join(style.model_label(model) for model in dict.fromkeys(runs[runs.index.isin(names)]))
