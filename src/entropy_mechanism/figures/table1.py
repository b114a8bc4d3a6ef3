"""Table 1: mean covariance of the top fraction of tokens before the first update."""

import numpy as np
import pandas as pd

from . import published, series, style

TITLE = "Covariance of the top tokens at the first step"
CAPTION = (
    "Mean token covariance (Eq. 10) of the tokens with the largest covariance, from the token records of the "
    "first step of the GRPO runs, averaged over seeds, beside the paper's Table 1 (Qwen2.5-7B). A few tokens "
    "carry almost all of it in both; the absolute values depend on how log-probabilities and advantages are "
    "spread over a model's tokens."
)
PREFIX = "covariance/top_"
PAPER = "paper_qwen2.5_7b"


def table(frames: style.Frames) -> pd.DataFrame:
    """Rows: top_fraction (share of tokens, 1 is all). Columns: the paper's value, then one per model.

    A model that was trained on several sets has a column for each.
    """
    paper = published.load("table1").set_index("top_fraction")["mean_covariance"]
    first = style.of_method(
        series.need(frames, "token_covariances", "run", "model", "train_set", "method", "step")
    )
    first = first[first["step"] == 0]
    columns = {float(name.removeprefix(PREFIX)): name for name in first.columns if name.startswith(PREFIX)}
    columns[1.0] = "covariance/mean"
    fractions = sorted(set(columns) | set(paper.index))
    frame = pd.DataFrame({"top_fraction": fractions, PAPER: paper.reindex(fractions).to_numpy()})
    first = first.assign(series=series.by_setting(first))
    runs = series.need(frames, "runs", "model", "non_embedding_parameters")
    for model in style.model_order(first["model"], runs):
        for name, rows in first[first["model"] == model].groupby("series", sort=False):
            means = rows.mean(numeric_only=True)
            frame[name] = [means.get(columns.get(fraction, ""), np.nan) for fraction in fractions]
    return frame


def display(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells as shown: three decimals, percent for the fractions."""
    names = {PAPER: "Paper, Qwen2.5-7B"}
    shown = {"Tokens": ["all" if f == 1 else f"top {100 * f:g} %" for f in frame["top_fraction"]]}
    for name in frame.columns[1:]:
        label = names.get(name, style.model_label(name))
        shown[label] = ["–" if pd.isna(value) else f"{value:.3f}" for value in frame[name]]
    return pd.DataFrame(shown)
