"""Table of one curve against several: do the methods share coefficients?"""

import pandas as pd

from ..analysis.common_law import COMMON, COMMON_LAW_COLUMNS
from . import style

TITLE = "One curve for several methods?"
CAPTION = (
    "R = -a exp(H) + b fitted to all runs of each method and to all methods together, with 95 % intervals; "
    "ceiling b - a and error in accuracy points. Test: F statistic of separate curves against one; its p-value "
    "comes from sharing the runs out to the methods at random, or, with too few seeds for that, from adding "
    "noise like the residuals' to the common curve (and shifts like those between seeds, where seeds show any). "
    "ΔAICc is that of separate curves less that of one, negative in favour of several. With one seed a method, "
    "several curves may mean no more than several runs; one curve says no more than that the points do not "
    "contradict it."
)
KEYS = ["model", "train_set"]


def table(frames: style.Frames) -> pd.DataFrame:
    """The study's rows: models by size, methods in their order, `common` last; accuracies as fractions."""
    frame = frames.get("common_law", pd.DataFrame()).reindex(columns=COMMON_LAW_COLUMNS)
    models = {model: i for i, model in enumerate(style.model_order(frame["model"], frames.get("runs")))}
    known = style.method_order(frame.loc[frame["method"] != COMMON, "method"])
    methods = {method: i for i, method in enumerate([*known, COMMON])}
    order = frame.assign(one=frame["model"].map(models), two=frame["method"].map(methods))
    return frame.loc[order.sort_values(["one", "train_set", "two"], kind="stable").index].reset_index(drop=True)


def display(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per method; the test stands in the row of the common curve."""
    shown = pd.DataFrame({"Model": [style.model_label(model) for model in frame["model"]]}, index=frame.index)
    shown["Trained on"] = frame["train_set"]
    common = frame["method"] == COMMON
    labels = [style.method_label(method) for method in frame["method"]]
    shown["Curve of"] = pd.Series(labels, index=frame.index).where(~common, "all together")
    shown["Runs"] = frame["runs"].astype(str)
    shown["Points"] = frame["points"].astype(str)
    for name, title, unit, digits in (("a", "a", 1, 3), ("b", "b", 1, 3), ("ceiling", "Ceiling", 100, 1)):
        values = zip(frame[name], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
        shown[title] = [_interval(*value, unit, digits) for value in values]
    shown["Error"] = ["–" if pd.isna(value) else f"{100 * value:.1f}" for value in frame["rmse"]]
    shown["F"] = _if(common, frame["statistic"], "{:.1f}")
    shown["p"] = _if(common, frame["p"], "{:.2g}")
    shown["ΔAICc"] = _if(common, frame["delta_aicc"], "{:+.1f}")
    shown["Verdict"] = frame["verdict"].where(common, "").fillna("")
    shown["Test"] = frame["test"].where(common, "").fillna("")
    return shown.reset_index(drop=True)


def _interval(value: float, low: float, high: float, unit: float, digits: int) -> str:
    if pd.isna(value):
        return "–"
    return f"{unit * value:.{digits}f} [{unit * low:.{digits}f}, {unit * high:.{digits}f}]"


def _if(chosen: pd.Series, values: pd.Series, text: str) -> list[str]:
    """Values as text where `chosen`, else nothing; a dash where there is none."""
    return [
        ("–" if pd.isna(value) else text.format(value)) if here else ""
        for here, value in zip(chosen, values, strict=True)
    ]
