"""Table of interventions against the baseline's curve and ceiling."""

import pandas as pd

from ..analysis.ceiling import CEILING_COLUMNS
from . import style

TITLE = "On the baseline's curve, or above its ceiling?"
CAPTION = (
    "R = -a exp(H) + b fitted to the baseline's runs (GRPO, all seeds of a model and training set), against "
    "every other run; accuracy points with 95 % intervals. From curve: mean distance of the last quarter's "
    "accuracies from the curve at their own entropies; from any curve: the same from the best falling function "
    "of entropy of any form, where entropies overlap. Over ceiling: largest accuracy less b - a; its interval "
    "allows for the largest of many noisy values being too large, so it lies lower than the number. Baseline: "
    "its own distance and excess. Where these are as large as the run's, the curve's form is at fault and the "
    "verdict says nothing about the run. Passed at: gradient steps from which accuracies lie above the ceiling. "
    "Paper: its Fig 11, read off the picture."
)
KEYS = ["source", "model", "train_set", "method", "seed"]


def table(frames: style.Frames) -> pd.DataFrame:
    """The study's rows with a column `source` (`ours`, `paper`) in front; accuracies as fractions."""
    parts = [
        frames.get(name, pd.DataFrame()).reindex(columns=CEILING_COLUMNS).assign(source=source)
        for source, name in (("ours", "ceiling"), ("paper", "published_ceiling"))
    ]
    frame = pd.concat([part for part in parts if not part.empty] or parts, ignore_index=True)
    models = {model: i for i, model in enumerate(style.model_order(frame["model"], frames.get("runs")))}
    methods = {method: i for i, method in enumerate(style.method_order(frame["method"]))}
    order = frame.assign(one=frame["model"].map(models), two=frame["method"].map(methods))
    order = order.sort_values(["source", "one", "train_set", "two", "seed"], kind="stable").index
    return frame.loc[order, ["source", *CEILING_COLUMNS]].reset_index(drop=True)


def display(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per run: `+9.9 [+9.5, +10.3]` accuracy points."""
    shown = pd.DataFrame({"Source": frame["source"].map({"ours": "this experiment", "paper": "paper, Fig 11"})})
    shown["Model"] = [style.model_label(model) for model in frame["model"]]
    if frame.groupby("source")["train_set"].nunique().gt(1).any():
        shown["Trained on"] = frame["train_set"]
    shown["Method"] = [style.method_label(method) for method in frame["method"]]
    shown["Seed"] = frame["seed"].astype(str).where(frame["source"] == "ours", "–")
    ceilings = zip(*(frame[f"baseline_ceiling{end}"] for end in ("", "_low", "_high")), strict=True)
    shown["Ceiling"] = [
        "–" if pd.isna(value) else f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        for value, low, high in ceilings
    ]
    names = {"residual": "From curve", "any_curve_residual": "From any curve", "excess": "Over ceiling"}
    for name, title in names.items():
        columns = (frame[f"{name}{end}"] for end in ("", "_low", "_high"))
        shown[title] = [_cell(*values) for values in zip(*columns, strict=True)]
    shown["Baseline"] = [
        "–" if pd.isna(residual) else f"{100 * residual:+.1f}, {100 * excess:+.1f}"
        for residual, excess in zip(frame["baseline_residual"], frame["baseline_excess"], strict=True)
    ]
    shown["Passed at"] = ["–" if pd.isna(steps) else f"{steps:.0f}" for steps in frame["passes_ceiling_at"]]
    shown["Verdict"] = frame["verdict"]
    return shown


def _cell(value: float, low: float, high: float) -> str:
    return "–" if pd.isna(value) else f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
