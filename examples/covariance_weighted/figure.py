"""A figure of one's own: entropy and accuracy of every method over gradient steps."""

import pandas as pd
from matplotlib.figure import Figure

from entropy_mechanism.figures import series, style

TITLE = "Entropy and accuracy by method"
CAPTION = "Policy entropy (nats per token) and validation accuracy (%) against gradient steps, means over seeds."
QUANTITIES = {
    "entropy": (style.ENTROPY, 1, style.ENTROPY_NAME),
    "accuracy": (style.ACCURACY, 100, style.ACCURACY_NAME),
}


def data(frames: style.Frames) -> pd.DataFrame:
    """One panel per quantity; series are methods."""
    parts = []
    for panel, (column, unit, name) in QUANTITIES.items():
        for method, curves in series.measured(frames, "curves", column).groupby("method"):
            parts.append(series.lines(curves, column, unit, panel=panel, series=str(method), y_name=name))
    return style.stack(parts)


@style.styled
def draw(frames: style.Frames) -> Figure:
    """The two panels above each other."""
    drawn = data(frames)
    figure = Figure(figsize=(style.ONE_COLUMN, 3.4))
    for axes, (panel, (_, _, name)) in zip(figure.subplots(2, 1, sharex=True), QUANTITIES.items(), strict=True):
        for method, look in style.method_looks(drawn["series"]).items():
            curve = style.by(drawn, panel=panel, series=method)
            axes.plot(curve["x"], curve["y"], color=look.colour, label=look.label)
        axes.set_ylabel(name)
    axes.set_xlabel(style.GRADIENT_STEPS)
    axes.legend()
    return figure
