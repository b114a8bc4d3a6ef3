"""Fig 1: entropy is spent for accuracy. Above: both against gradient steps. Below: one against the other."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import law_panels, panels, published, series, style

TITLE = "Entropy is spent for accuracy"
CAPTION = (
    "Above: policy entropy (nats per token) and validation accuracy (%) of GRPO against gradient steps, for the "
    "largest model; with several seeds the line is their mean and the band their range. Faint dotted: the paper's "
    "curves, stretched along both axes so that they begin and end where ours do; only their shape compares. "
    "Below: accuracy against entropy for every model on mathematics, with the fits of R = -a exp(H) + b (lines); "
    "grey: the published fits of Qwen2.5 0.5B to 32B in the same units, on other tasks. The paper's Fig 1 shows "
    "entropy falling from about 0.5 to 0.02 nats while accuracy rises from about 21 to 39 %, most of both early "
    "on."
)
TRAINING, LAW = "training", "law"
QUANTITIES = {
    "accuracy": (style.ACCURACY, 100, style.ACCURACY_NAME, style.ACCURACY_COLOUR, "accuracy_percent"),
    "entropy": (style.ENTROPY, 1, style.ENTROPY_NAME, style.ENTROPY_COLOUR, "entropy"),
}


def _stretched(curve: pd.DataFrame, ours: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The published curve with its first and last point moved onto ours: x and y, each by one linear map."""
    step, value = (curve[name].to_numpy(float) for name in ("step", "value"))
    x, y = ours["x"].to_numpy(float), ours["y"].to_numpy(float)
    share, reached = (step - step[0]) / (step[-1] - step[0]), (value - value[0]) / (value[-1] - value[0])
    return x[0] + share * (x[-1] - x[0]), y[0] + reached * (y[-1] - y[0])


def _training_rows(frames: style.Frames) -> pd.DataFrame:
    parts = []
    shown = series.one_setting(style.of_method(series.measured(frames, "curves", style.ENTROPY)), frames)
    for quantity, (column, unit, name, _, published_name) in QUANTITIES.items():
        names = {"panel": TRAINING, "series": quantity, "y_name": name}
        ours = series.lines(series.measured({"curves": shown}, "curves", column), column, unit, **names)
        if len(ours) < 2:
            continue
        paper = published.load("fig01_left").groupby("quantity").get_group(published_name).sort_values("step")
        x, y = _stretched(paper, ours)
        stretched = {"mark": "line", "x_name": style.GRADIENT_STEPS, "source": "paper, stretched"}
        parts += [ours, style.rows(x=x, y=y, **names, **stretched)]
    return style.stack(parts)


def data(frames: style.Frames) -> pd.DataFrame:
    """Panel `training`: means over seeds, ranges, stretched published curves. Panel `law`: as in Fig 3."""
    law = law_panels.by_family(frames, "math").assign(panel=LAW)
    return style.stack([_training_rows(frames), law, *([law_panels.published_rows(LAW)] if len(law) else [])])


def _draw_training(left: Axes, drawn: pd.DataFrame, title: str) -> None:
    right = style.second_axis(left, style.ACCURACY_COLOUR, style.ENTROPY_COLOUR)
    handles = []
    for axes, (quantity, (_, _, name, colour, _)) in zip((left, right), QUANTITIES.items(), strict=True):
        ours = style.by(drawn, series=quantity, source="ours")
        paper = style.by(drawn, series=quantity, source="paper, stretched")
        style.band(axes, ours, colour)
        marker = "o" if len(ours) <= 40 else ""
        handles += axes.plot(ours["x"], ours["y"], color=colour, marker=marker, label=quantity)
        faint = axes.plot(paper["x"], paper["y"], ":", color=colour, alpha=0.45, linewidth=1.0)
        axes.set_ylabel(name)
    right.set_ylim(0, 1.08 * right.get_ylim()[1])
    handles[1].set_label("entropy (right)")
    faint[0].set_label("paper's shape")
    panels.legend_above(left, title, [*handles, faint[0]])
    left.set_xlabel(style.GRADIENT_STEPS)


@style.styled
def draw(frames: style.Frames) -> Figure:
    """Two panels below each other over one column."""
    drawn = data(frames)
    figure = Figure(figsize=(style.ONE_COLUMN, 4.9))
    training, law = figure.subplots(2, 1, gridspec_kw={"height_ratios": [1, 1.15]})
    rows = style.by(drawn, panel=TRAINING)
    if len(set(rows["series"])) == len(QUANTITIES):
        shown = series.one_setting(style.of_method(series.measured(frames, "curves", style.ENTROPY)), frames)
        _draw_training(training, rows, f"GRPO, {style.model_label(shown['model'].iloc[0])}")
    else:
        style.message(training, "No GRPO run has two validations.")
    rows = style.by(drawn, panel=LAW)
    if rows.empty:
        style.message(law, "No GRPO run on mathematics has\nvalidation accuracies.")
    else:
        looks = series.setting_looks(series.baseline_points(frames, "math"), frames)
        law_panels.draw_law(law, rows, looks, "Accuracy against entropy, with fits", law_panels.PAPER_FITS)
    return figure
