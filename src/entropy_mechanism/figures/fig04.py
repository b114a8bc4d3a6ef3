"""Fig 4: validation accuracy against policy entropy with the fitted law on code, one panel per family."""

import pandas as pd
from matplotlib.figure import Figure

from . import law_panels, style

TITLE = "Accuracy against entropy on code, by model family"
CAPTION = (
    "As Fig 3, for GRPO runs whose training problems are graded by running a program: accuracy (%) of each "
    "validation against the entropy of the same policy (nats per token; logarithmic, reversed axis), with the "
    "fits of R = -a exp(H) + b; with several seeds the line is the mean of their fits and the band their range. "
    "The paper's Fig 4 shows eleven models, whose fits reach 45 % for Qwen2.5 and dip below 0 at high entropy; "
    "its curves could not be read off."
)


def data(frames: style.Frames) -> pd.DataFrame:
    """Dots and curves per family."""
    return law_panels.by_family(frames, "code")


@style.styled
def draw(frames: style.Frames) -> Figure:
    """One panel per family, in the order of the families' smallest models, over one column."""
    return law_panels.draw_families(frames, data(frames), "code")
