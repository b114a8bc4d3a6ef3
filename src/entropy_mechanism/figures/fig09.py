"""Fig 9: entropy bonus: entropy and accuracy for several coefficients."""

import pandas as pd
from matplotlib.figure import Figure

from . import style, sweep

TITLE = "An entropy bonus is hard to tune"
SWEEP = sweep.Sweep("regularisation", "entropy", "entropy coefficient α")
CAPTION = (
    "Policy entropy (nats per token) and validation accuracy (%) against gradient steps for GRPO with the loss L "
    "- αH, runs that differ in α only; with several seeds lines are means and bands their range. The paper's Fig "
    "9 (α of 0, 0.0001, 0.001, 0.005 and 0.01) shows entropy exploding at 0.01 and no gain in accuracy from "
    "smaller ones; its curves could not be read off."
)


def data(frames: style.Frames) -> pd.DataFrame:
    """Panels `bonus / entropy` and `bonus / accuracy`; series are coefficients."""
    return sweep.rows(frames, SWEEP, "bonus")


@style.styled
def draw(frames: style.Frames) -> Figure:
    """Entropy above accuracy over one column."""
    drawn = data(frames)
    missing = "No run has an entropy bonus\n(regularisation.entropy)."
    return sweep.draw(drawn, {"bonus": ("", SWEEP)}, missing, sweep.model_of(drawn, frames))
