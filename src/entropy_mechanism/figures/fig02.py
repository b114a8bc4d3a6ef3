"""Fig 2: how much entropy is left and how much of the gain is reached early in training."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import panels, series, style

TITLE = "Most of the change happens early"
# Printed in the paper's Fig 2 (shares in percent, averaged over 11 models), at steps 200 and 800 of 2400.
PAPER = {(1 / 12, "entropy left"): 27.0, (1 / 12, "gain reached"): 76.0}
PAPER |= {(1 / 3, "entropy left"): 6.0, (1 / 3, "gain reached"): 93.0}
CAPTION = (
    "Share of the entropy still unspent and share of the accuracy gain already reached after a twelfth and after "
    "a third of training, each GRPO run measured by its own total change. Bars: mean over all models (of a "
    "model's seeds the mean first); dots: single runs, where there are several, one colour and marker per model, "
    "larger ones darker. Black diamonds: the paper's Fig 2, the mean over its eleven models."
)
QUANTITIES = {
    "entropy left": ("entropy_left", style.ENTROPY_COLOUR),
    "gain reached": ("accuracy_reached", style.ACCURACY_COLOUR),
}
FRACTIONS = {1 / 12: "1/12 of training", 1 / 3: "1/3 of training"}


def data(frames: style.Frames) -> pd.DataFrame:
    """Bars (means over models, percent), dots (runs), the paper's printed values; x is a share of training."""
    columns = [column for column, _ in QUANTITIES.values()]
    runs = style.of_method(series.need(frames, "consumption", "run", "model", "method", "fraction", *columns))
    sets = series.need(frames, "runs", "run", "train_set").set_index("run")["train_set"]
    runs = runs.assign(train_set=runs["run"].map(sets).fillna(""))
    parts = []
    for fraction, panel in FRACTIONS.items():
        here = runs[np.isclose(runs["fraction"].astype(float), fraction, rtol=0, atol=1e-6)]
        for name, (column, _) in QUANTITIES.items():
            measured = here.dropna(subset=[column])
            if measured.empty:
                continue
            names = {"panel": panel, "series": name, "x_name": "Share of training", "x": fraction}
            names["y_name"] = "Share of the run's total change (%)"
            models = measured.groupby(["model", "train_set"])[column].mean()
            parts.append(style.rows(mark="bar", y=100 * models.mean(), **names))
            for run, value in zip(measured["run"], measured[column], strict=True):
                parts.append(style.rows(mark="dot", y=100 * value, **names | {"run": run}))
            parts.append(style.rows(mark="bar", y=PAPER[fraction, name], **names | {"source": "paper"}))
    return style.stack(parts)


@style.styled
def draw(frames: style.Frames) -> Figure:
    """Two groups of two bars over one column."""
    drawn = data(frames)
    if drawn.empty:
        return panels.empty_figure("No GRPO run is long enough to be\nread at 1/12 and 1/3 of training.")
    figure = Figure(figsize=(style.ONE_COLUMN, 2.5))
    axes = figure.add_subplot()
    models = _models(frames)
    looks = series.model_looks(style.by(drawn, mark="dot")["run"].map(models), frames)
    width = 0.36
    for i, panel in enumerate(FRACTIONS.values()):
        for side, (name, (_, colour)) in zip((-1, 1), QUANTITIES.items(), strict=True):
            here = style.by(drawn, panel=panel, series=name)
            if here.empty:
                continue
            x = i + side * (width / 2 + 0.02)
            mean = style.by(here, mark="bar", source="ours")["y"].item()
            paper = style.by(here, source="paper")["y"].item()
            dots = style.by(here, mark="dot")
            axes.bar(x, mean, width, color=colour, alpha=0.45, label="" if i else name)
            for place, (model, look) in zip(np.linspace(-0.15, 0.07, len(looks)), looks.items(), strict=True):
                mine = dots.loc[(dots["run"].map(models) == model) & (len(dots) > 1), "y"]
                edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.4}
                axes.plot(np.full(len(mine), x + place), mine, look.marker, color=look.colour, **edge)
            axes.plot(x + 0.135, paper, "D", color="#111111", markeredgecolor="white", markersize=4.5, zorder=4)
            axes.annotate(
                f"{mean:.0f} %",
                (x, 0),
                xycoords=axes.get_xaxis_transform(),
                xytext=(0, -3),
                textcoords="offset points",
                ha="center",
                va="top",
            )
    handles, _ = axes.get_legend_handles_labels()
    handles.append(Line2D([], [], marker="D", color="#111111", markersize=4.5, linestyle="none", label="paper"))
    axes.set_xticks(range(len(FRACTIONS)), FRACTIONS.values())
    axes.tick_params(axis="x", length=0, pad=11)
    axes.grid(False, axis="x")
    axes.axhline(0, color="#666666", linewidth=0.6)
    axes.set_ylim(min(0.0, drawn["y"].min() * 1.1), max(100.0, drawn["y"].max()) * 1.05)
    axes.set_ylabel("Share of total change (%)")
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def _models(frames: style.Frames) -> dict[str, str]:
    return dict(zip(frames["consumption"]["run"], frames["consumption"]["model"], strict=True))
