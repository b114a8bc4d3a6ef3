"""Table `covariance_grid`: sign of the covariance and its link to the loss of entropy, in all kinds of runs."""

import numpy as np
import pandas as pd

from . import style

TITLE = "Covariance and entropy loss across tasks, models, algorithms and updates"
CAPTION = (
    "Over the steps of training: share with a positive response-level covariance (Eq. 8-9), Pearson correlation "
    "of the covariance with the entropy lost until the next step, and slope through the origin of that loss on "
    "the covariance. Same prefixes: the correlation with the entropy lost after the same prefixes, which other "
    "prompts do not blur, where it was measured. In brackets 95 % intervals; several seeds are averaged, and so "
    "are their intervals. On-policy: one update per rollout."
)
KEYS = ["task", "model", "train_set", "method", "updates_per_rollout"]
MEASURES = ("positive_share", "pearson", "slope_through_origin", "same_prefix_pearson")


def table(frames: style.Frames) -> pd.DataFrame:
    """One row per task, model, training set, method and updates per rollout, averaged over `seeds`.

    Columns: these, then seeds, steps (of all seeds), and each of `MEASURES` with `_low` and `_high`.
    """
    summary, runs = (frames.get(name, pd.DataFrame()) for name in ("dynamics_summary", "runs"))
    values = [name + end for name in MEASURES for end in ("", "_low", "_high")]
    columns = [*KEYS, "seeds", "steps", *values]
    if summary.empty or runs.empty:
        return pd.DataFrame(columns=columns)
    described = runs.reindex(columns=["run", "non_embedding_parameters", *KEYS])
    described = described.assign(task=described["task"].astype(object).where(described["task"].notna(), ""))
    summary = summary.reindex(columns=["run", "steps", *values])
    joined = summary.merge(described, on="run", validate="one_to_one")
    order = {method: place for place, method in enumerate(style.method_order(joined["method"]))}
    joined = joined.assign(place=joined["method"].map(order)).sort_values(
        ["task", "non_embedding_parameters", "model", "train_set", "place"], ascending=[False, *[True] * 4]
    )
    grouped = joined.groupby(KEYS, sort=False)
    found = grouped[values].mean().assign(seeds=grouped["run"].nunique(), steps=grouped["steps"].sum())
    return found.reset_index()[columns]


def display(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells as shown, with intervals."""
    shown = {
        "Task": frame["task"].replace("", "–"),
        "Model": [style.model_label(model) for model in frame["model"]],
        "Trained on": frame["train_set"],
        "Method": [style.method_label(method) for method in frame["method"]],
        "Updates": ["on-policy" if updates == 1 else f"{updates:g}" for updates in frame["updates_per_rollout"]],
        "Seeds": frame["seeds"],
        "Steps": frame["steps"],
        "Positive (%)": _cells(frame, "positive_share", 100, ".0f"),
        "Correlation": _cells(frame, "pearson", 1, ".2f"),
        "Slope": _cells(frame, "slope_through_origin", 1, ".2g"),
        "Same prefixes": _cells(frame, "same_prefix_pearson", 1, ".2f"),
    }
    return pd.DataFrame(shown)


def _cells(frame: pd.DataFrame, name: str, factor: float, form: str) -> list[str]:
    cells = []
    for value, low, high in frame[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float) * factor:
        interval = f" [{low:{form}}, {high:{form}}]" if np.isfinite([low, high]).all() else ""
        cells.append(f"{value:{form}}{interval}".replace("-", "−") if np.isfinite(value) else "–")
    return cells
