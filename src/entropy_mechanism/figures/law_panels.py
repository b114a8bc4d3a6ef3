"""Panels of accuracy against entropy with the fitted law, which many figures show of other runs."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..analysis.law import law as evaluate_law
from . import panels, published, series, style

AXES = {"x_name": style.ENTROPY_NAME, "y_name": style.ACCURACY_NAME}
PAPER_FITS = "paper, Qwen2.5 0.5B–32B"


def law_rows(points: pd.DataFrame, law: pd.DataFrame) -> pd.DataFrame:
    """Dots of every run and one curve per series, accuracies in percent.

    `points` are validations with the columns panel and series, in drawing order; `law` has a and b by run. A
    series of several runs has the curve of their mean a and b, which is the mean of their curves, and low and
    high of the runs' curves.
    """
    fits = series.need({"law": law}, "law", "run", "a", "b").dropna(subset=["a", "b"]).set_index("run")
    parts = []
    for (panel, name), here in points.groupby(["panel", "series"], sort=False):
        names = {"panel": panel, "series": name, **AXES}
        for run, mine in here.groupby("run", sort=False):
            accuracy = 100 * mine[style.ACCURACY]
            parts.append(style.rows(mark="dot", run=run, x=mine[style.ENTROPY], y=accuracy, **names))
        runs = [run for run in dict.fromkeys(here["run"]) if run in fits.index]
        low, high = here[style.ENTROPY].min(), here[style.ENTROPY].max()
        if runs and low < high:
            parts.append(fit_rows(fits.loc[runs], low, high, run=" ".join(runs), **names))
    return style.stack(parts)


def fit_rows(fits: pd.DataFrame, low: float, high: float, **names: str) -> pd.DataFrame:
    """The mean curve of fits (columns a and b) between two entropies, with their range if there are several."""
    grid = style.between(low, high)
    curves = 100 * np.array([evaluate_law(grid, a, b) for a, b in zip(fits["a"], fits["b"], strict=True)])
    band = {"low": curves.min(axis=0), "high": curves.max(axis=0)} if len(curves) > 1 else {}
    return style.rows(**{"mark": "fit"} | AXES | names, x=grid, y=curves.mean(axis=0), **band)


def published_rows(panel: str, sizes: Iterable[str] = ("0.5B", "1.5B", "3B", "7B", "32B")) -> pd.DataFrame:
    """The published curves of Qwen2.5 on mathematics, fits of R = -a exp(H) + b."""
    curves = published.load("fig01_right_fits")
    return style.stack(
        style.rows(
            panel=panel,
            source="paper",
            series=f"Qwen2.5-{size}",
            mark="fit",
            x=curve["entropy"],
            y=curve["accuracy_percent"],
            **AXES,
        )
        for size, curve in curves[curves["model"].isin(list(sizes))].groupby("model", sort=False)
    )


def published_dots(panel: str, name: str, points: pd.DataFrame) -> pd.DataFrame:
    """Published points, columns entropy (nats) and accuracy_percent."""
    x, y = points["entropy"], points["accuracy_percent"]
    return style.rows(panel=panel, source="paper", series=name, mark="dot", x=x, y=y, **AXES)


def draw_paper(axes: Axes, drawn: pd.DataFrame, label: str | None = None) -> None:
    """Draw published rows in grey behind ours: all under one label, or each series under its own name."""
    greys = ("#BDBDBD", "#8C8C8C")
    for i, (name, curve) in enumerate(style.by(drawn, source="paper").groupby("series", sort=False)):
        grey = greys[0] if label else greys[i % len(greys)]
        title = (None if i else label) if label else f"paper, {name}"
        fit, dots = (style.by(curve, mark=mark) for mark in ("fit", "dot"))
        if len(fit):
            axes.plot(fit["x"], fit["y"], color=grey, linewidth=0.9, zorder=1, label=title)
        if len(dots):
            marker = "+x"[i % 2]
            named = None if len(fit) else title
            axes.plot(dots["x"], dots["y"], marker, color=grey, markersize=2.8, zorder=1, label=named)


def draw_law(
    axes: Axes,
    drawn: pd.DataFrame,
    looks: Mapping[str, style.Look],
    title: str,
    paper_label: str | None = None,
) -> None:
    """Draw one panel of `law_rows` over published rows, with its title and a legend."""
    draw_paper(axes, drawn, paper_label)
    for name, rows in style.by(drawn, source="ours").groupby("series", sort=False):
        look = looks[name]
        dots, fit = (style.by(rows, mark=mark) for mark in ("dot", "fit"))
        style.band(axes, fit, look.colour)
        axes.plot(fit["x"], fit["y"], color=look.colour, linestyle=look.dashes, zorder=3)
        axes.plot(
            dots["x"],
            dots["y"],
            look.marker,
            color=look.colour,
            alpha=0.75,
            markeredgewidth=0,
            zorder=2,
        )
        axes.plot(
            [], [], look.marker, color=look.colour, linestyle=look.dashes, label=look.label, markeredgewidth=0
        )
    style.entropy_axis(axes)
    axes.set_ylabel(style.ACCURACY_NAME)
    axes.margins(y=0.08)
    panels.legend_above(axes, title)


def by_family(frames: style.Frames, task: str) -> pd.DataFrame:
    """Figs 3 and 4: the GRPO runs of a task, one panel per family, one series per model and training set."""
    points = series.baseline_points(frames, task)
    runs = series.need(frames, "runs", "model", "non_embedding_parameters")
    order = {model: i for i, model in enumerate(style.model_order(points["model"], runs))}
    points = points.assign(panel=points["model"].map(style.family), series=series.by_setting(points))
    points = points.loc[points["model"].map(order).sort_values(kind="stable").index]
    return law_rows(points, series.need(frames, "law", "run", "a", "b"))


def draw_families(frames: style.Frames, drawn: pd.DataFrame, task: str) -> Figure:
    """One panel per family below the other over one column."""
    families = list(dict.fromkeys(style.by(drawn, source="ours")["panel"]))
    if not families:
        return panels.empty_figure(f"No GRPO run on {series.TASKS[task]} has\nvalidation accuracies.")
    figure = Figure(figsize=(style.ONE_COLUMN, 0.3 + 2.2 * len(families)))
    looks = series.setting_looks(series.baseline_points(frames, task), frames)
    for axes, name in zip(figure.subplots(len(families), 1, squeeze=False)[:, 0], families, strict=True):
        rows = style.by(drawn, panel=name)
        stems = dict.fromkeys(style.stem(model) for model in style.by(rows, source="ours")["series"])
        title = f"{' and '.join(map(style.model_label, stems))} models, {series.TASKS[task]}"
        draw_law(axes, rows, looks, title, PAPER_FITS)
    return figure
