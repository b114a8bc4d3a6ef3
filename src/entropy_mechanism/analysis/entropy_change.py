"""How much entropy the measured steps of a run spend, and where: after the same prefixes, or on other ones."""

import pandas as pd

from entropy_mechanism.analysis.columns import ENTROPY_BEFORE_FILTER
from entropy_mechanism.analysis.law import require_columns, rows_by_run

IDENTITY = ["run", "model", "train_set", "method", "seed", "updates_per_rollout"]
LOGGED = ("same_prefix", "predicted", "logit_advantage", "logit_weighted_advantage")
"""Columns `entropy_change/…` of the curves."""
ENTROPY_CHANGE_COLUMNS = [
    *IDENTITY,
    *("step", "gradient_steps", "measured", "same_prefix", "state_distribution", *LOGGED[1:]),
]


def entropy_change(curves: pd.DataFrame, entropy_column: str = ENTROPY_BEFORE_FILTER) -> pd.DataFrame:
    """Return the frame of entropy_change.parquet: one row per measured step, in nats.

    `measured` is the entropy of the next step's rollout less that of this one's, `same_prefix` the change that
    the updates make on this rollout's prefixes and `predicted` that by Lemma 1. What is left of `measured`,
    `state_distribution`, comes of other prefixes: those that the new policy brings forth, and those of other
    prompts and draws, which is noise of mean zero. A step whose successor was not logged has neither `measured`
    nor `state_distribution`. `logit_advantage` and `logit_weighted_advantage` are correlations, over the step's
    tokens, of the change of their logit with A and pi A.

    Raises ValueError for missing columns or a step that a run has twice.
    """
    require_columns(curves, [*IDENTITY, "step", "gradient_steps", entropy_column])
    logged = {name: f"entropy_change/{name}" for name in LOGGED}
    curves = curves.assign(**{name: float("nan") for name in logged.values() if name not in curves})
    frames = []
    for _, rows in rows_by_run(curves):
        entropy = rows.set_index("step")[entropy_column].astype(float)
        following = entropy.reindex(entropy.index + 1).to_numpy()
        rows = rows.assign(
            measured=following - entropy.to_numpy(),
            **{name: rows[column].astype(float) for name, column in logged.items()},
        )
        frames.append(rows[rows["same_prefix"].notna()])
    frame = pd.concat(frames, ignore_index=True) if frames else curves.iloc[:0].assign(measured=0.0)
    frame = frame.assign(state_distribution=frame.get("measured") - frame.get("same_prefix", 0.0))
    return frame.reindex(columns=ENTROPY_CHANGE_COLUMNS)
