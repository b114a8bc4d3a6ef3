"""Table of differences by problem between a policy and those it is compared with."""

from typing import Any

import pandas as pd

from . import averages, series, style

TITLE = "Differences by problem"
CAPTION = (
    "Score of a policy less that of the policy it is compared with, on the same problems, in percentage points, "
    "with 95 % bootstrap interval over problems; mean over seeds, intervals of single seeds averaged. In bold: "
    "intervals without 0. An interval holds the luck of the problems, not that of training, and with many "
    "comparisons some exclude 0 by chance; p-values of a permutation test within problems stand in the CSV. "
    "Averages are shown where all policies answered the same benchmarks."
)
KEYS = ["model", "train_set", "method", "reference_method"]
COLUMNS = ("policy", "benchmark", "protocol", "problems", "difference", "low", "high", "p")


def table(frames: style.Frames) -> pd.DataFrame:
    """One row per model, train set, method, reference, benchmark and protocol, averaged over `seeds`.

    Columns: these, then seeds, problems, difference, low, high (shares, 0 to 1) and p, the largest of the seeds'.
    """
    frame = series.need(frames, "comparison", *KEYS, *COLUMNS)
    benchmarks = averages.answered(frame)
    if len(set(map(frozenset, benchmarks.values()))) > 1:  # averages over different benchmarks do not compare
        frame = frame[~frame["benchmark"].isin(averages.NAMES)]
    grouped = frame.groupby([*KEYS, "benchmark", "protocol"], sort=False)
    found = grouped.agg(
        seeds=("policy", "nunique"),
        problems=("problems", "first"),
        difference=("difference", "mean"),
        low=("low", "mean"),
        high=("high", "mean"),
        p=("p", "max"),
    ).reset_index()
    models = {
        model: i for i, model in enumerate(style.model_order(found["model"], series.need(frames, "runs", "model")))
    }
    methods = {method: i for i, method in enumerate(style.method_order(found["method"]))}
    order = found.assign(one=found["model"].map(models), two=found["method"].map(methods))
    return found.loc[order.sort_values(["one", "train_set", "two"], kind="stable").index].reset_index(drop=True)


def display(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per comparison, one column per benchmark and protocol: `+3.2 [+0.5, +6.1]`."""
    names = [
        benchmark if benchmark in ("pooled", "macro") else f"{benchmark} {protocol}"
        for benchmark, protocol in zip(frame["benchmark"], frame["protocol"], strict=True)
    ]
    cells = frame.assign(name=names, cell=[_cell(row) for row in frame.itertuples()])
    wide = cells.pivot_table(index=KEYS, columns="name", values="cell", aggfunc="first", sort=False)
    rows = wide[list(dict.fromkeys(names))].reset_index()
    shown = pd.DataFrame({"Model": [style.model_label(model) for model in rows["model"]]})
    if rows["train_set"].nunique() > 1:
        shown["Trained on"] = rows["train_set"]
    shown["Difference"] = [
        f"{style.method_label(ours)} − {style.method_label(theirs)}"
        for ours, theirs in zip(rows["method"], rows["reference_method"], strict=True)
    ]
    for name in wide.columns:
        shown[name] = rows[name].fillna("–")
    return shown


def _cell(row: Any) -> str:
    text = f"{100 * row.difference:+.1f}"
    if row.low > 0 or row.high < 0:
        text = f"**{text}**"
    return f"{text} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
