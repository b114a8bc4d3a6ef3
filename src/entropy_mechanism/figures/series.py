"""Which runs a figure shows and how several seeds become one series."""

import math
from collections.abc import Iterable

import pandas as pd
from matplotlib.typing import LineStyleType

from . import style

TASKS = {"math": "mathematics", "code": "code"}
"""Tasks as `runs` names them, and as titles do."""
LAST_SHARE = 0.1
"""Ends of curves are means over this last share of the steps: a single step is noisy."""


def need(frames: style.Frames, kind: str, *columns: str) -> pd.DataFrame:
    """A frame that has the columns: NaN where they were not measured, no rows where the file is not there."""
    frame = frames.get(kind, pd.DataFrame())
    missing = [name for name in columns if name not in frame.columns]
    return frame.assign(**dict.fromkeys(missing, math.nan)) if missing else frame


def of_task(frame: pd.DataFrame, frames: style.Frames, task: str) -> pd.DataFrame:
    """The rows of runs that were trained on a task, one of `TASKS`."""
    runs = need(frames, "runs", "run", "task")
    return frame[frame["run"].isin(runs.loc[runs["task"] == task, "run"])]


def baseline_points(frames: style.Frames, task: str | None = None) -> pd.DataFrame:
    """The GRPO rows, of one task if given, that have an entropy above 0 (axes are logarithmic) and an accuracy."""
    curves = style.of_method(measured(frames, "curves", style.ENTROPY, style.ACCURACY))
    curves = curves[curves[style.ENTROPY] > 0]
    return of_task(curves, frames, task) if task else curves


def measured(frames: style.Frames, kind: str, *columns: str) -> pd.DataFrame:
    """The rows of curves in which all the columns are measured."""
    identity = ("run", "model", "train_set", "method", "seed", "step", "gradient_steps")
    frame = need(frames, kind, *identity, *columns)
    return frame.dropna(subset=list(columns))


def one_setting(frame: pd.DataFrame, frames: style.Frames) -> pd.DataFrame:
    """The rows of the largest model, on the training set with most runs: a figure about one model shows these.

    Among training sets with equally many runs, tasks come in the order of `TASKS`, then sets as they appear.
    """
    runs = need(frames, "runs", "run", "model", "task", "non_embedding_parameters")
    frame = style.largest_model(frame, runs)
    order = list(TASKS)
    tasks = runs.set_index("run")["task"].map(lambda task: order.index(task) if task in order else len(order))
    counts = frame.groupby("train_set", sort=False)["run"].agg(["nunique", "first"])
    if counts.empty:
        return frame
    ranked = counts.assign(task=counts["first"].map(tasks)).sort_values(
        ["nunique", "task"], ascending=[False, True], kind="stable"
    )
    return frame[frame["train_set"] == ranked.index[0]]


def by_setting(frame: pd.DataFrame) -> pd.Series:
    """Name of every row's series: its model, with the training set where the model has several in the frame."""
    several = frame.groupby("model")["train_set"].transform("nunique") > 1
    return frame["model"].where(~several, frame["model"].astype(str) + " on " + frame["train_set"].astype(str))


def model_looks(models: Iterable[str], frames: style.Frames) -> dict[str, style.Look]:
    """Looks of models, smallest first."""
    runs = need(frames, "runs", "model", "non_embedding_parameters")
    sizes = runs.groupby("model")["non_embedding_parameters"].first()
    ordered = style.model_order(models, runs)
    return {model: style.model_look(model, sizes.get(model, math.nan)) for model in ordered}


def setting_looks(frame: pd.DataFrame, frames: style.Frames) -> dict[str, style.Look]:
    """Looks of the series of `by_setting`: the model's, with dashes that tell its training sets apart."""
    looks: dict[str, style.Look] = {}
    dashes: tuple[LineStyleType, ...] = ("-", "--", ":", "-.")
    pairs = frame[["model", "train_set"]].drop_duplicates()
    for model, look in model_looks(pairs["model"], frames).items():
        sets = pairs.loc[pairs["model"] == model, "train_set"]
        for i, train_set in enumerate(sets):
            label = look.label if len(sets) == 1 else f"{look.label} on {train_set}"
            name = model if len(sets) == 1 else f"{model} on {train_set}"
            looks[name] = style.Look(label, look.colour, look.marker, dashes[i % len(dashes)])
    return looks


def lines(curves: pd.DataFrame, column: str, unit: float, **names: str) -> pd.DataFrame:
    """Rows of a line over gradient steps: mean over the runs in `curves`, low and high their range."""
    series = style.over_seeds(curves, column)
    if series.empty:
        return series
    several = curves["run"].nunique() > 1
    band = {name: unit * series[name] for name in ("low", "high")} if several else {}
    return style.rows(
        mark="line",
        run=" ".join(dict.fromkeys(curves["run"])),
        x_name=style.GRADIENT_STEPS,
        x=series["gradient_steps"],
        y=unit * series["mean"],
        **band,
        **names,
    )


def last_tenth(curve: pd.DataFrame, column: str) -> float:
    """`ending` of a column of one run's curve, by step."""
    return ending(curve.sort_values("step")[column])


def ending(values: pd.Series) -> float:
    """Mean over the last tenth of a series without its gaps, at least its last value; NaN without any."""
    values = values.dropna()
    return float(values.tail(max(1, math.ceil(LAST_SHARE * len(values)))).mean()) if len(values) else math.nan
