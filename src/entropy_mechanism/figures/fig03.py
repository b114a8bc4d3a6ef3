"""Fig 3: validation accuracy against policy entropy with the fitted law on mathematics, one panel per family."""

import pandas as pd
from matplotlib.figure import Figure

from . import law_panels, style

TITLE = "Accuracy against entropy on mathematics, by model family"
CAPTION = (
    "Each dot is one validation of a GRPO run on mathematics: its accuracy (%) against the policy entropy of the "
    "same policy (nats per token; logarithmic, reversed axis, so training runs from left to right). Lines are the "
    "fits of R = -a exp(H) + b; with several seeds the line is the mean of their fits and the band their range. "
    "Darker: larger models; markers: families. Grey: the paper's fits of Qwen2.5 0.5B to 32B, in the same units, "
    "on its own tasks. The paper's Fig 3 shows eleven models of 0.5 to 32 billion parameters."
)


def data(frames: style.Frames) -> pd.DataFrame:
    """Dots and curves per family, and the published curves behind Qwen, or else behind the first family."""
    ours = law_panels.by_family(frames, "math")
    if ours.empty:
        return ours
    panel = "Qwen" if "Qwen" in set(ours["panel"]) else ours["panel"].iloc[0]
    return style.stack([ours, law_panels.published_rows(panel)])


@style.styled
def draw(frames: style.Frames) -> Figure:
    """One panel per family, in the order of the families' smallest models, over one column."""
    return law_panels.draw_families(frames, data(frames), "math")
