"""Fig 13: the law depends on the training data: one model trained on several sets."""

import pandas as pd
from matplotlib.figure import Figure

from . import law_panels, panels, published, series, style

TITLE = "The coefficients depend on the training data"
CAPTION = (
    "Accuracy (%) of each validation against the entropy of the same policy (nats per token; logarithmic, "
    "reversed axis) of one model trained with GRPO on several training sets, with the fits of R = -a exp(H) + b; "
    "with several seeds the line is the mean of their fits and the band their range. Grey crosses: Qwen2.5-7B in "
    "the paper on Eurus-2 (its Fig 1) and on DAPO-MATH (its Fig 11, steps where both quantities could be read). "
    "The paper's Fig 13 compares DAPO-MATH, GSM8K and two sets of Eurus-2 and finds different coefficients."
)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
PANEL = "train sets"


def points(frames: style.Frames) -> pd.DataFrame:
    """GRPO validations on mathematics of the model with most training sets, then the largest."""
    found = series.baseline_points(frames, "math")
    counts = found.groupby("model")["train_set"].nunique()
    found = found[found["model"].isin(counts.index[counts == counts.max()])]
    found = style.largest_model(found, series.need(frames, "runs", "model", "non_embedding_parameters"))
    return found.sort_values(["train_set", "seed", "step"], kind="stable").assign(
        panel=PANEL, series=lambda frame: frame["train_set"]
    )


def _published() -> list[pd.DataFrame]:
    eurus = published.load("fig01_right_qwen2.5")
    dapo = published.load("fig11_qwen2.5-7b")
    dapo = dapo[dapo["series"] == "GRPO"].pivot(index="step", columns="quantity", values="value")
    return [
        law_panels.published_dots(PANEL, "Eurus-2", eurus[eurus["model"] == "7B"]),
        law_panels.published_dots(PANEL, "DAPO-MATH", dapo.dropna(subset=["entropy", "accuracy_percent"])),
    ]


def data(frames: style.Frames) -> pd.DataFrame:
    """Dots and curves per training set, and the paper's dots."""
    ours = law_panels.law_rows(points(frames), series.need(frames, "law", "run", "a", "b"))
    return style.stack([ours, *_published()] if len(ours) else [])


@style.styled
def draw(frames: style.Frames) -> Figure:
    """One panel over one column."""
    drawn = data(frames)
    if drawn.empty:
        return panels.empty_figure("No GRPO run on mathematics has\nvalidation accuracies.")
    figure = Figure(figsize=(style.ONE_COLUMN, 2.8))
    axes = figure.add_subplot()
    sets = list(dict.fromkeys(style.by(drawn, source="ours")["series"]))
    looks = {
        name: style.Look(name, _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)])
        for i, name in enumerate(sets)
    }
    law_panels.draw_law(axes, drawn, looks, style.model_label(points(frames)["model"].iloc[0]))
    return figure
