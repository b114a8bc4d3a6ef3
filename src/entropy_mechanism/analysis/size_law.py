"""The law's coefficients against model size: a and b linear in the logarithm of parameters (Fig 7)."""

import math

import numpy as np
import pandas as pd
from scipy.stats import t

from entropy_mechanism.analysis.columns import BASELINE
from entropy_mechanism.analysis.law import require_columns

LINE = [
    *("fitted", "intercept", "slope", "slope_low", "slope_high"),
    *("left_out_prediction", "left_out_error", "left_out_error_of_mean"),
]
SIZE_LAW_COLUMNS = [
    *("task", "coefficient", "model", "non_embedding_parameters", "value", "low", "high", "runs"),
    *(*LINE, "sizes"),
]
MINIMUM_SIZES = 3
"""Two sizes always lie on a line."""
BILLION = 1e9


def size_law(law: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Fit value = intercept + slope ln(non-embedding parameters in billions) for a and b of every task.

    `law` and `runs` are law.parquet and runs.parquet of the runs to compare, of which the baseline's (GRPO) enter.
    `value` is a model's mean coefficient over its runs (seeds, training sets of the task), `low` and `high` the
    widest ends of their bootstrap intervals. Models weigh alike. `slope_low` and `slope_high` bound the 95 %
    interval of least squares, which takes the models' deviations from the line for independent.

    `left_out_prediction` is what the line through the other models says of a model and `left_out_error` that less
    `value`; `left_out_error_of_mean` is the error of the other models' mean, which knows no size. Fewer than three
    sizes leave the line NaN, fewer than four the prediction of a model left out determined by two others alone.

    Returns one row per task, coefficient (a, b) and model. Raises ValueError for a missing column.
    """
    require_columns(law, ["run", "method", "a", "a_low", "a_high", "b", "b_low", "b_high"], "law")
    require_columns(runs, ["run", "model", "task", "non_embedding_parameters"], "runs")
    sizes = runs[["run", "model", "task", "non_embedding_parameters"]]
    joined = law[law["method"] == BASELINE].drop(columns="model", errors="ignore").merge(sizes, on="run")
    parts = []
    for task, rows in joined.groupby("task", sort=False):
        for coefficient in ("a", "b"):
            known = rows.dropna(subset=[coefficient, "non_embedding_parameters"])
            models = known.groupby("model", sort=False).agg(
                non_embedding_parameters=("non_embedding_parameters", "first"),
                value=(coefficient, "mean"),
                low=(f"{coefficient}_low", "min"),
                high=(f"{coefficient}_high", "max"),
                runs=("run", "nunique"),
            )
            models = models.sort_values("non_embedding_parameters").reset_index()
            if not models.empty:
                parts.append(_fit(models).assign(task=task, coefficient=coefficient))
    return (
        pd.concat(parts, ignore_index=True)[SIZE_LAW_COLUMNS] if parts else pd.DataFrame(columns=SIZE_LAW_COLUMNS)
    )


def _fit(models: pd.DataFrame) -> pd.DataFrame:
    x = np.log(models["non_embedding_parameters"].to_numpy(float) / BILLION)
    y = models["value"].to_numpy(float)
    sizes = np.unique(x).size
    columns = dict.fromkeys(LINE, np.full(x.size, math.nan)) | {"sizes": sizes}
    if sizes >= MINIMUM_SIZES:
        slope, intercept = np.polyfit(x, y, 1)
        fitted = intercept + slope * x
        half = t.ppf(0.975, x.size - 2) * math.sqrt(
            ((y - fitted) ** 2).sum() / (x.size - 2) / ((x - x.mean()) ** 2).sum()
        )
        others = [np.delete(np.arange(x.size), i) for i in range(x.size)]
        predicted = np.array([_at(x[rest], y[rest], x[i]) for i, rest in enumerate(others)])
        columns |= {
            "fitted": fitted,
            "intercept": intercept,
            "slope": slope,
            "slope_low": slope - half,
            "slope_high": slope + half,
            "left_out_prediction": predicted,
            "left_out_error": predicted - y,
            "left_out_error_of_mean": np.array([y[rest].mean() for rest in others]) - y,
        }
    return models.assign(**columns)


def _at(x: np.ndarray, y: np.ndarray, where: float) -> float:
    if np.unique(x).size < 2:
        return math.nan
    slope, intercept = np.polyfit(x, y, 1)
    return intercept + slope * where
