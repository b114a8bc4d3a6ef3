"""Fig 14: the law for instruction-tuned models."""

import pandas as pd
from matplotlib.figure import Figure

from . import law_panels, panels, series, style

TITLE = "The law for instruction-tuned models"
PANEL = "instruct"
CAPTION = (
    "Accuracy (%) of each validation against the entropy of the same policy (nats per token; logarithmic, "
    "reversed axis) of instruction-tuned models trained with GRPO on mathematics, with the fits of R = -a exp(H) "
    "+ b; with several seeds the line is the mean of their fits and the band their range. The paper's Fig 14 "
    "shows Qwen2.5 1.5B, 3B and 7B Instruct, from about 15 to 40 % around 0.1 nats; its curves could not be read "
    "off."
)


def _points(frames: style.Frames) -> pd.DataFrame:
    points = series.baseline_points(frames, "math")
    models = style.model_order(points["model"], series.need(frames, "runs", "model", "non_embedding_parameters"))
    points = points.assign(panel=PANEL, series=series.by_setting(points), order=points["model"].map(models.index))
    return points.sort_values("order", kind="stable")


def data(frames: style.Frames) -> pd.DataFrame:
    """Dots and curves of every model."""
    return law_panels.law_rows(_points(frames), series.need(frames, "law", "run", "a", "b"))


@style.styled
def draw(frames: style.Frames) -> Figure:
    """One panel over one column."""
    drawn = data(frames)
    if drawn.empty:
        return panels.empty_figure(
            "No GRPO run of an instruction-tuned model\non mathematics has validation accuracies."
        )
    figure = Figure(figsize=(style.ONE_COLUMN, 2.6))
    axes = figure.add_subplot()
    law_panels.draw_law(axes, drawn, series.setting_looks(_points(frames), frames), "Instruction-tuned models")
    return figure
