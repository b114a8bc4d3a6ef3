"""Fig 5: the law fitted on the first 15 % of training predicts the rest. Above: mathematics. Below: code."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import law_panels, panels, series, style

TITLE = "Early training predicts late accuracy"
FRACTION = 0.15
SIZES = ("1.5B", "3B", "7B", "32B")
"""The paper's Fig 5 leaves 0.5B out."""
FORECAST = (0, (3.5, 1.5))
CAPTION = (
    "R = -a exp(H) + b fitted on the first 15 % of each GRPO run (filled dots, solid line) and continued over the "
    "entropies of the rest (open dots, dashed line), on mathematics and on code; with several seeds the line is "
    "the mean of their fits and the band their range. In brackets: root mean square error over the predicted "
    "points, in accuracy points, averaged over seeds. Grey: the paper's fits to the whole of training of Qwen2.5 "
    "1.5B to 32B on mathematics. The paper's Fig 5 predicts these and reports 0.9 points on mathematics and 1.2 "
    "on code."
)


def forecasts(frames: style.Frames, kind: str, task: str, *columns: str) -> pd.DataFrame:
    """GRPO rows of `forecasts` or `forecast_points`: fitted by the law to the first 15 %, one task's runs."""
    chosen = ("method", "fraction", "predictor", "direction")
    frame = style.of_method(series.need(frames, kind, "run", "model", *chosen, *columns))
    frame = frame[(frame["predictor"] == "exponential") & (frame["direction"] == "forward")]
    frame = frame[np.isclose(frame["fraction"].astype(float), FRACTION, rtol=0, atol=1e-6)]
    return series.of_task(frame, frames, task).dropna(subset=list(columns))


def data(frames: style.Frames) -> pd.DataFrame:
    """Panels `math` and `code`: dots `fitted` and `predicted` of every run, mean curves of each; percent."""
    return style.stack([_rows(frames, task) for task in series.TASKS])


def _points(frames: style.Frames, task: str) -> pd.DataFrame:
    """Validations of runs whose early part could be fitted, with their training set and series."""
    points = forecasts(frames, "forecast_points", task, "entropy", "accuracy", "fitted")
    runs = forecasts(frames, "forecasts", task, "a", "b")["run"]
    points = points[(points["entropy"] > 0) & points["run"].isin(runs)]
    sets = series.need(frames, "runs", "run", "train_set").set_index("run")["train_set"]
    points = points.assign(train_set=points["run"].map(sets))
    return points.assign(series=series.by_setting(points))


def _rows(frames: style.Frames, task: str) -> pd.DataFrame:
    points = _points(frames, task)
    laws = forecasts(frames, "forecasts", task, "a", "b").set_index("run")
    parts = []
    for name in series.setting_looks(points, frames):
        mine = points[points["series"] == name]
        names = {"panel": task, "series": name}
        early = mine["fitted"].astype(bool)
        for mark, chosen in (("fitted", mine[early]), ("predicted", mine[~early])):
            for run, dots in chosen.groupby("run", sort=False):
                x, y = dots["entropy"], 100 * dots["accuracy"]
                parts.append(style.rows(mark=mark, run=run, x=x, y=y, **law_panels.AXES, **names))
        lowest = mine[early].groupby("run")["entropy"].min()  # where the two parts of each seed meet
        middle = float(np.exp(np.log(lowest).mean()))
        ends = {"fit": (middle, mine["entropy"].max()), "forecast": (mine["entropy"].min(), middle)}
        runs = list(dict.fromkeys(mine["run"]))
        for mark, (low, high) in ends.items():
            if low < high:
                fits = laws.loc[runs]
                parts.append(law_panels.fit_rows(fits, low, high, mark=mark, run=" ".join(runs), **names))
    paper = [law_panels.published_rows(task, SIZES)] if parts and task == "math" else []
    return style.stack([*parts, *paper])


def _draw_panel(axes: Axes, drawn: pd.DataFrame, frames: style.Frames, task: str) -> None:
    law_panels.draw_paper(axes, drawn, "paper, Qwen2.5 1.5B–32B")
    errors = forecasts(frames, "forecasts", task, "rmse").set_index("run")["rmse"]
    looks = series.setting_looks(_points(frames, task), frames)
    for name, rows in style.by(drawn, source="ours").groupby("series", sort=False):
        look = looks[name]
        for mark, face in (("fitted", look.colour), ("predicted", "white")):
            dots = style.by(rows, mark=mark)
            colours: dict[str, Any] = {"color": look.colour, "markerfacecolor": face, "markeredgewidth": 0.6}
            axes.plot(dots["x"], dots["y"], look.marker, markersize=2.8, **colours)
        for mark, dashes in (("fit", "-"), ("forecast", FORECAST)):
            curve = style.by(rows, mark=mark)
            style.band(axes, curve, look.colour)
            axes.plot(curve["x"], curve["y"], color=look.colour, linestyle=dashes, zorder=3, linewidth=1.1)
        error = errors[errors.index.isin(rows["run"])].mean()
        label = look.label if np.isnan(error) else f"{look.label} ({100 * error:.1f} points)"
        axes.plot([], [], look.marker, color=look.colour, linestyle="-", label=label)
    style.entropy_axis(axes)
    axes.set_ylabel(style.ACCURACY_NAME)
    axes.margins(y=0.08)
    panels.legend_above(axes, series.TASKS[task].capitalize())


@style.styled
def draw(frames: style.Frames) -> Figure:
    """A panel per task over one column."""
    drawn = data(frames)
    tasks = [task for task in series.TASKS if task in set(drawn["panel"])]
    if not tasks:
        return panels.empty_figure("No GRPO run has enough validations in\nits first 15 % to fit the law.")
    figure = Figure(figsize=(style.ONE_COLUMN, 0.5 + 2.5 * len(tasks)))
    for axes, task in zip(figure.subplots(len(tasks), 1, squeeze=False)[:, 0], tasks, strict=True):
        _draw_panel(axes, style.by(drawn, panel=task), frames, task)
    grey: dict[str, Any] = {"color": "#555555", "marker": "o", "markersize": 2.8}
    marks = [
        Line2D([], [], **grey, label="fitted on the first 15 %"),
        Line2D([], [], **grey, linestyle=FORECAST, markerfacecolor="white", label="predicted"),
    ]
    figure.legend(handles=marks, loc="outside upper center", ncols=2)
    return figure
