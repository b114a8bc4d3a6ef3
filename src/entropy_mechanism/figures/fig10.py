"""Fig 10: KL to the base model: entropy and accuracy for several coefficients."""

import pandas as pd
from matplotlib.figure import Figure

from . import style, sweep

TITLE = "A KL to the base model keeps entropy and costs accuracy"
SWEEP = sweep.Sweep("regularisation", "reference_kl", "reference-KL coefficient β")
CAPTION = (
    "Policy entropy (nats per token) and validation accuracy (%) against gradient steps for GRPO with the loss L "
    "+ β KL(policy, base model), runs that differ in β only; with several seeds lines are means and bands their "
    "range. The paper's Fig 10 (β of 0, 0.001, 0.01, 0.05 and 0.1) shows entropy held up and accuracy lowered; "
    "its curves could not be read off."
)


def data(frames: style.Frames) -> pd.DataFrame:
    """Panels `reference / entropy` and `reference / accuracy`; series are coefficients."""
    return sweep.rows(frames, SWEEP, "reference")


@style.styled
def draw(frames: style.Frames) -> Figure:
    """Entropy above accuracy over one column."""
    drawn = data(frames)
    missing = "No run has a KL to the base model\n(regularisation.reference_kl)."
    return sweep.draw(drawn, {"reference": ("", SWEEP)}, missing, sweep.model_of(drawn, frames))
