"""Fig 5: the law fitted on the first 15 % of training predicts the rest."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..analysis.law import law
from . import registry, style

INPUTS = registry.FIGURES["fig05"].inputs
TITLE = "Early training predicts late accuracy"
FRACTION = 0.15
CAPTION = (
    "R = -a exp(H) + b fitted on the first 15 % of each GRPO run (filled dots, solid line) and continued "
    "over the entropies of the rest (open dots, dashed line). In brackets: root mean square error over "
    "the predicted points, in accuracy points, averaged over seeds. The paper's Fig 5 does this for "
    "Qwen2.5 1.5B to 32B and reports 0.9 points on math and 1.2 on code."
)


def _at_fraction(frame: pd.DataFrame) -> pd.DataFrame:
    frame = style.of_method(frame)
    frame = frame[(frame["predictor"] == "exponential") & (frame["direction"] == "forward")]
    return frame[np.isclose(frame["fraction"], FRACTION, rtol=0, atol=1e-6)]


def data(frames: style.Frames) -> pd.DataFrame:
    """Per run: dots `fitted` and `predicted`, and the curve over the entropies of each; percent."""
    points = _at_fraction(frames["forecast_points"]).dropna(subset=["entropy", "accuracy"])
    points = points[points["entropy"] > 0]
    forecasts = _at_fraction(frames["forecasts"]).dropna(subset=["a", "b"]).set_index("run")
    parts = []
    for model in style.model_order(points["model"], frames["runs"]):
        for run, mine in points[points["model"] == model].groupby("run"):
            if run not in forecasts.index:
                continue
            names = {"panel": "forecast", "series": model, "run": run}
            names |= {"x_name": style.ENTROPY_NAME, "y_name": style.ACCURACY_NAME}
            fitted = mine["fitted"].astype(bool)
            for mark, dots in (("fitted", mine[fitted]), ("predicted", mine[~fitted])):
                parts.append(style.rows(mark=mark, x=dots["entropy"], y=100 * dots["accuracy"], **names))
            middle = mine.loc[fitted, "entropy"].min()
            ends = {
                "fit": (middle, mine.loc[fitted, "entropy"].max()),
                "forecast": (mine["entropy"].min(), middle),
            }
            for mark, (low, high) in ends.items():
                if low < high:
                    grid = style.between(low, high)
                    curve = law(grid, forecasts.at[run, "a"], forecasts.at[run, "b"])
                    parts.append(style.rows(mark=mark, x=grid, y=100 * curve, **names))
    return style.stack(parts)


@style.styled
def draw(frames: style.Frames) -> Figure:
    """One panel over one column."""
    drawn = data(frames)
    figure = Figure(figsize=(style.ONE_COLUMN, 2.7))
    axes = figure.add_subplot()
    if drawn.empty:
        style.message(axes, "No GRPO run has enough validations in\nits first 15 % to fit the law.")
        return figure
    looks = style.size_looks(frames["runs"])
    errors = _at_fraction(frames["forecasts"]).groupby("model")["rmse"].mean()
    named = []
    for (model, _), run in drawn.groupby(["series", "run"], sort=False):
        look = looks[model]
        for mark, filled in (("fitted", True), ("predicted", False)):
            dots = style.by(run, mark=mark)
            face = look.colour if filled else "white"
            axes.plot(
                dots["x"],
                dots["y"],
                look.marker,
                color=look.colour,
                markerfacecolor=face,
                markeredgewidth=0.7,
            )
        for mark, dashes in (("fit", "-"), ("forecast", (0, (3.5, 1.5)))):
            curve = style.by(run, mark=mark)
            axes.plot(curve["x"], curve["y"], color=look.colour, linestyle=dashes, zorder=3, linewidth=1.1)
        if model not in named:
            named.append(model)
    style.entropy_axis(axes)
    axes.set_ylabel(style.ACCURACY_NAME)
    axes.margins(y=0.08)
    handles = [
        Line2D(
            [],
            [],
            color=looks[model].colour,
            marker=looks[model].marker,
            label=_label(looks[model], errors[model]),
        )
        for model in named
    ]
    grey = {"color": "#555555", "marker": "o"}
    handles.append(Line2D([], [], **grey, label="fitted on the first 15 %"))
    handles.append(Line2D([], [], **grey, linestyle=(0, (3.5, 1.5)), markerfacecolor="white", label="predicted"))
    if len(named) == 1:
        axes.legend(handles=handles, loc="lower right")  # empty, since the curve rises and flattens
    else:
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _label(look: style.Look, error: float) -> str:
    return look.label if np.isnan(error) else f"{look.label} ({100 * error:.1f} points)"
