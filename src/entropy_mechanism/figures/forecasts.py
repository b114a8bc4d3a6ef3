"""Table of forecasts: the law against predictors that know less."""

import numpy as np
import pandas as pd

from ..analysis.forecasting import FORECAST_COLUMNS, PREDICTORS
from . import style

TITLE = "Predicting one part of training from another"
CAPTION = (
    "Root mean square error over the predicted points and, in brackets, error at the point farthest from the "
    "fitted ones, both in accuracy points, median over runs (one run that falls apart would rule a mean; means "
    "stand in the CSV file). Forward: the first part of training is fitted and the rest predicted; reversed: the "
    "last part, and what came before. Exponential is the paper's law, which like linear and log-entropy is given "
    "the measured entropies of the points it predicts; log-steps is given only their steps, last-value repeats "
    "the nearest fitted accuracy. In bold: the smallest error. The paper reports 0.9 points over the rest and "
    "0.5 at the end from the first 15 % on mathematics, 1.2 and 1.9 on code, and no other predictor. Paper: GRPO "
    "in its Fig 11 (Qwen2.5-7B and 32B), read off the picture."
)
KEYS = ["source", "direction", "fraction"]


def table(frames: style.Frames) -> pd.DataFrame:
    """One row per source (`ours`, `paper`), direction, fraction and predictor.

    Columns: these, runs, rmse and final_error (means over runs, fractions), median_rmse, median_final_error and
    best (runs in which the predictor's rmse is the smallest). Only runs that every predictor could be fitted to
    enter, so that all see the same runs.
    """
    parts = []
    for source, name in (("ours", "forecasts"), ("paper", "published_forecasts")):
        frame = frames.get(name, pd.DataFrame()).reindex(columns=FORECAST_COLUMNS).assign(source=source)
        frame = frame.dropna(subset=["run", "predictor"])
        frame = frame if source == "ours" else style.of_method(frame)
        keys = [*KEYS, "run"]
        complete = frame.groupby(keys)["rmse"].transform(lambda errors: errors.notna().all())
        frame = frame[complete.astype(bool)]
        smallest = frame.groupby(keys)["rmse"].transform("min")
        parts.append(frame.assign(best=frame["rmse"] == smallest))
    frame = pd.concat([part for part in parts if not part.empty] or parts, ignore_index=True)
    table = (
        frame.groupby([*KEYS, "predictor"])
        .agg(
            runs=("run", "nunique"),
            rmse=("rmse", "mean"),
            final_error=("final_error", "mean"),
            median_rmse=("rmse", "median"),
            median_final_error=("final_error", "median"),
            best=("best", "sum"),
        )
        .reset_index()
    )
    predictors = {predictor: i for i, predictor in enumerate(PREDICTORS)}
    order = table.assign(rank=table["predictor"].map(predictors))
    return table.loc[order.sort_values([*KEYS, "rank"], kind="stable").index].reset_index(drop=True)


def display(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per source, direction and fraction; a column per predictor: `1.3 (0.8)`."""
    rows = []
    for (source, direction, fraction), mine in frame.groupby(KEYS, sort=False):
        known = mine.set_index("predictor")
        row = {
            "Source": {"ours": "this experiment", "paper": "paper, Fig 11"}[source],
            "Direction": direction,
            "Fitted": f"{100 * fraction:g} %",
            "Runs": str(known["runs"].max()),
        }
        smallest = known["median_rmse"].min()
        for predictor in PREDICTORS:
            row[predictor] = _cell(known.loc[predictor], smallest) if predictor in known.index else "–"
        rows.append(row)
    return pd.DataFrame(rows, columns=["Source", "Direction", "Fitted", "Runs", *PREDICTORS])


def _cell(row: pd.Series, smallest: float) -> str:
    text = f"{100 * row['median_rmse']:.1f} ({100 * row['median_final_error']:.1f})"
    return f"**{text}**" if np.isclose(row["median_rmse"], smallest) else text
