"""The paper's curves as runs: read off its figures, brought into the columns of curves.parquet."""

import numpy as np
import pandas as pd

from entropy_mechanism.analysis.columns import ACCURACY, BASELINE, ENTROPY

LONGEST_GAP = 32
"""Gradient steps between two readings of an entropy that is interpolated: the distance of two validations."""
PERCENT = 100


def dots(frame: pd.DataFrame, prefix: str, train_set: str) -> pd.DataFrame:
    """Points (model, entropy, accuracy_percent) of Fig 1 right as one run per model, `<prefix>--<model>--grpo`.

    The figure has no steps: points are numbered by falling entropy, as they were drawn, and dots hidden behind
    others are not there. So their order means something, the distances of their numbers do not.
    """
    parts = []
    for name, rows in frame.groupby("model", sort=False):
        rows = rows.sort_values("entropy", ascending=False, kind="stable")
        model = f"qwen2.5-{name.lower()}"
        parts.append(_run(prefix, model, train_set, BASELINE, np.arange(len(rows)), rows["entropy"], rows))
    return pd.concat(parts, ignore_index=True)


def joined(frame: pd.DataFrame, prefix: str, model: str, train_set: str) -> pd.DataFrame:
    """Entropy and accuracy of Fig 11 (series, quantity, step, value) as points of one run per method.

    The two were read off different panels, each with gaps. A point stands where an accuracy was read and an
    entropy was read at the same gradient step, or on both sides no more than 32 steps apart: the entropy is then
    interpolated between the two. All other accuracies are left out.
    """
    parts = []
    for series, rows in frame.groupby("series", sort=False):
        accuracy = rows[rows["quantity"] == "accuracy_percent"].sort_values("step")
        entropy = rows[rows["quantity"] == "entropy"].sort_values("step")
        at, known = accuracy["step"].to_numpy(float), entropy["step"].to_numpy(float)
        before = np.searchsorted(known, at, side="right") - 1
        after = np.searchsorted(known, at, side="left")
        inside = (before >= 0) & (after < known.size)
        gap = np.full(at.size, np.inf)
        gap[inside] = known[after[inside]] - known[before[inside]]
        kept = gap <= LONGEST_GAP
        values = np.interp(at[kept], known, entropy["value"].to_numpy(float))
        points = accuracy[kept].rename(columns={"value": "accuracy_percent"})
        parts.append(_run(prefix, model, train_set, series.lower(), points["step"], values, points))
    return pd.concat(parts, ignore_index=True)


def _run(
    prefix: str, model: str, train_set: str, method: str, steps: object, entropy: object, points: pd.DataFrame
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run": f"{prefix}--{model}--{method}",
            "model": model,
            "train_set": train_set,
            "method": method,
            "seed": 0,
            "step": np.asarray(steps),
            "gradient_steps": np.asarray(steps),
            ENTROPY: np.asarray(entropy),
            ACCURACY: points["accuracy_percent"].to_numpy() / PERCENT,
        }
    )
