"""Fig 7: the coefficients of the law against model size."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import panels, series, style

TITLE = "The coefficients against model size"
CAPTION = (
    "Coefficients a and b of R = -a exp(H) + b (R as a fraction) of GRPO runs against the natural logarithm of "
    "non-embedding parameters in billions, on mathematics (above) and on code (below). Dots: fits with 95 % "
    "intervals, cut off where they leave the panel; with several runs of a size their mean and the widest ends of "
    "their intervals; line: linear in the logarithm; open circles: what the line "
    "through the other sizes predicts for a size. Grey crosses and dashed line: the coefficients of the paper's "
    "drawn curves of Qwen2.5 0.5B to 32B on mathematics (its Fig 7 a, b), against their own sizes, which the grey "
    "axis shows where they are far from ours; the vertical axis is shared. Those on code could not be read off."
)
COEFFICIENTS = ("a", "b")
X_NAME = "ln(billion parameters)"
COLUMNS = (
    *("task", "coefficient", "model", "non_embedding_parameters", "value", "low", "high"),
    *("intercept", "slope", "left_out_prediction"),
)
FAR = 2.0
"""How far apart the logarithms of sizes may be for the paper's to share our axis."""


def data(frames: style.Frames) -> pd.DataFrame:
    """Panels `<task> / a` and `<task> / b`: dots with intervals, lines, left-out predictions, the paper's dots."""
    frame = series.need(frames, "size_law", *COLUMNS).dropna(subset=["value", "non_embedding_parameters"])
    paper = series.need(frames, "published_size_law", *COLUMNS)
    parts = []
    for task in series.TASKS:
        for coefficient in COEFFICIENTS:
            here = frame[(frame["task"] == task) & (frame["coefficient"] == coefficient)]
            if here.empty:
                continue
            names = {"panel": f"{task} / {coefficient}", "x_name": X_NAME, "y_name": coefficient}
            size = np.log(here["non_embedding_parameters"].astype(float) / 1e9)
            for mark, columns in (("dot", ["value", "low", "high"]), ("left out", ["left_out_prediction"])):
                for model, x, *values in zip(here["model"], size, *(here[name] for name in columns), strict=True):
                    known = dict(zip(("y", "low", "high"), values, strict=False))
                    parts.append(style.rows(mark=mark, series=model, x=x, **known, **names))
            if np.isfinite(here.iloc[0][["intercept", "slope"]].astype(float)).all() and len(here) > 1:
                parts.append(style.rows(**_line(here, size), **names))
            theirs = paper[(paper["task"] == task) & (paper["coefficient"] == coefficient)]
            if len(theirs):
                size = np.log(theirs["non_embedding_parameters"].astype(float) / 1e9)
                for model, x, y in zip(theirs["model"], size, theirs["value"], strict=True):
                    parts.append(style.rows(source="paper", mark="dot", series=model, x=x, y=y, **names))
                parts.append(style.rows(source="paper", **_line(theirs, size), **names))
    return style.stack(parts)


def _line(here: pd.DataFrame, size: pd.Series) -> dict[str, Any]:
    """The line of the study between the smallest and the largest size."""
    ends = np.array([size.min(), size.max()])
    line = here.iloc[0]
    y = line["intercept"] + line["slope"] * ends
    return {"mark": "fit", "series": "linear in ln(size)", "x": ends, "y": y}


def _draw_panel(axes: Axes, drawn: pd.DataFrame, frames: style.Frames) -> None:
    ours, paper = (style.by(drawn, source=source) for source in ("ours", "paper"))
    dots, left_out, fit = (style.by(ours, mark=mark) for mark in ("dot", "left out", "fit"))
    if len(paper):
        apart = max(dots["x"].min() - paper["x"].max(), paper["x"].min() - dots["x"].max())
        behind = axes.twiny() if apart > FAR else axes
        points, line = (style.by(paper, mark=mark) for mark in ("dot", "fit"))
        behind.plot(points["x"], points["y"], "x", color="#8C8C8C", markersize=3.5, zorder=1)
        behind.plot(line["x"], line["y"], "--", color="#BDBDBD", linewidth=0.9, zorder=1)
        if behind is not axes:
            behind.grid(False)
            behind.margins(x=0.12)
            behind.tick_params(axis="x", colors="#8C8C8C", pad=1)
    axes.plot(fit["x"], fit["y"], color="#444444", linewidth=1.0, zorder=2)
    looks = series.model_looks(dots["series"], frames)
    for row in dots.itertuples():
        look = looks[row.series]
        if np.isfinite([row.low, row.high]).all():
            axes.plot([row.x, row.x], [row.low, row.high], color=look.colour, linewidth=0.9, zorder=3)
        axes.plot(row.x, row.y, look.marker, color=look.colour, markersize=4, zorder=4)
    axes.plot(left_out["x"], left_out["y"], "o", color="#444444", markerfacecolor="none", markersize=5.5, zorder=3)
    values = drawn.loc[drawn["mark"] != "fit", "y"]
    room = 0.6 * (values.max() - values.min()) or 0.1
    axes.set_ylim(values.min() - room, values.max() + room)  # intervals may be far wider than the differences
    axes.margins(x=0.12)


@style.styled
def draw(frames: style.Frames) -> Figure:
    """Two panels per task, a and b beside each other, over one column."""
    drawn = data(frames)
    tasks = [task for task in series.TASKS if drawn["panel"].astype(str).str.startswith(f"{task} /").any()]
    if not tasks:
        return panels.empty_figure("No GRPO run has coefficients of the law\nfor a model of known size.")
    figure = Figure(figsize=(style.ONE_COLUMN, 0.7 + 1.75 * len(tasks)))
    for pair, task in zip(figure.subplots(len(tasks), 2, squeeze=False), tasks, strict=True):
        for axes, coefficient in zip(pair, COEFFICIENTS, strict=True):
            rows = style.by(drawn, panel=f"{task} / {coefficient}")
            if rows.empty:
                style.message(axes, "not measured")
                continue
            _draw_panel(axes, rows, frames)
            axes.set_title(f"{coefficient}, {series.TASKS[task]}")
            axes.set_xlabel(X_NAME)
    dark: dict[str, Any] = {"color": "#444444"}
    grey: dict[str, Any] = {"color": "#8C8C8C"}
    handles = [
        Line2D([], [], **dark, marker="o", linestyle="none", label="fit with interval"),
        Line2D([], [], **dark, marker="o", linestyle="none", markerfacecolor="none", label="predicted, left out"),
        Line2D([], [], **dark, label="linear in ln(size)"),
        Line2D([], [], **grey, marker="x", linestyle="--", label="paper, Qwen2.5"),
    ]
    figure.legend(
        handles=handles if (drawn["source"] == "paper").any() else handles[:3], loc="outside upper center", ncols=2
    )
    return figure
