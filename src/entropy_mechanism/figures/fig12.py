"""Fig 12: entropy is controlled by the fraction of Clip-Cov and the coefficient of KL-Cov; and the accuracy."""

import pandas as pd
from matplotlib.figure import Figure

from . import style, sweep

TITLE = "Controlling the entropy"
CAPTION = (
    "Policy entropy (nats per token, above) and validation accuracy (%, below) against gradient steps. Left: "
    "Clip-Cov, runs that differ in the share r of detached tokens only; right: KL-Cov, runs that differ in the "
    "coefficient β of the penalty only; black dashed: GRPO from the same model. A coefficient of 0 is not GRPO: "
    "KL-Cov then is a policy gradient without clipping. With several seeds lines are means and bands their range. "
    "The paper's Fig 12 has r of 0.0002 to 0.0007 and β of 0 to 1, shows the entropy only, and could not be read "
    "off; one curve of each is in Fig 11."
)
COLUMNS = {
    "clip-cov": ("Clip-Cov", sweep.Sweep("objective", "fraction", "share r", "clip-cov")),
    "kl-cov": ("KL-Cov", sweep.Sweep("objective", "coefficient", "coefficient β", "kl-cov")),
}


def data(frames: style.Frames) -> pd.DataFrame:
    """Panels `clip-cov / entropy`, `kl-cov / accuracy` and so on; series are coefficients and GRPO."""
    return style.stack([sweep.rows(frames, entry, name) for name, (_, entry) in COLUMNS.items()])


@style.styled
def draw(frames: style.Frames) -> Figure:
    """Clip-Cov beside KL-Cov, entropy above accuracy, over one column."""
    drawn = data(frames)
    missing = "No run of Clip-Cov or KL-Cov\nin this experiment."
    return sweep.draw(drawn, COLUMNS, missing, sweep.model_of(drawn, frames))
