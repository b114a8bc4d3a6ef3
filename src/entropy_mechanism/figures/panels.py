"""What several figures do to a panel."""

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from . import style


def legend_above(axes: Axes, title: str, handles: list[Artist] | None = None) -> None:
    """A legend between the title and the axes, where it covers no data; as many columns as fit its labels."""
    if handles is None:
        handles, _ = axes.get_legend_handles_labels()
    if not handles:
        axes.set_title(title)
        return
    longest = max(len(str(handle.get_label())) for handle in handles)
    figure, grid = axes.get_figure(root=True), axes.get_gridspec()
    assert figure is not None, "the axes belong to no figure"
    assert grid is not None, "the axes were not made by `subplots`"
    points = 72 * figure.get_figwidth() / grid.ncols
    fitting = int(points / (3.5 * longest + 28))  # letters of 6.5 points, the handle and the gaps
    legend = axes.legend(
        handles=handles,
        title=title,
        title_fontsize=7.5,
        alignment="center",
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=min(max(1, fitting), len(handles)),
        columnspacing=1.0,
        handletextpad=0.5,
    )
    legend.get_title().set_multialignment("center")


def log_entropy(axes: Axes, drawn: pd.DataFrame) -> None:
    """Entropies upwards: on a logarithmic axis where they span more than a factor of ten, else from 0."""
    positive = drawn.loc[drawn["y"] > 0, "y"]
    if len(positive) and positive.max() > 10 * positive.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, 1.08 * np.nanmax(drawn[["y", "high"]].to_numpy(float)))


def empty_figure(text: str) -> Figure:
    """A figure over one column that says why there is nothing to draw."""
    figure = Figure(figsize=(style.ONE_COLUMN, 1.2))
    style.message(figure.add_subplot(), text)
    return figure
