"""Fig 6: accuracy against entropy for several algorithms, with their own fits and one common fit."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import law_panels, panels, published, series, style

TITLE = "One curve for all algorithms?"
METHODS = ("grpo", "rloo", "prime", "reinforce++")
CAPTION = (
    "Accuracy (%) of each validation against the entropy of the same policy (nats per token; logarithmic, "
    "reversed axis) for GRPO, RLOO, PRIME and REINFORCE++ from the same model and training set, dots of all "
    "seeds. Thin lines: each algorithm's own fit of R = -a exp(H) + b, the mean of its seeds with their range as "
    "band. Thick dashed line: one fit for all. The title says what the test of one curve against several found, "
    "and how much the AICc changes when each algorithm has its own (negative: the separate curves are better). "
    "Grey crosses: Qwen2.5-7B with GRPO in the paper, whose Fig 6 draws one common curve through the four and has "
    "no test."
)
VERDICT = ("statistic", "p", "delta_aicc", "verdict")


def _points(frames: style.Frames) -> pd.DataFrame:
    """Validations of the algorithms where at least two of them share model and training set; else of any."""
    points = series.measured(frames, "curves", style.ENTROPY, style.ACCURACY)
    points = points[(points[style.ENTROPY] > 0) & points["method"].map(style.method_key).isin(METHODS)]
    counts = points.groupby(["model", "train_set"])["method"].transform("nunique")
    points = points[counts > 1] if (counts > 1).any() else series.one_setting(points, frames)
    points = points.assign(panel=series.by_setting(points), series=points["method"].map(style.method_key))
    runs = series.need(frames, "runs", "model", "non_embedding_parameters")
    models = style.model_order(points["model"], runs)
    order = points.assign(
        one=points["model"].map(models.index), two=points["series"].map(METHODS.index)
    ).sort_values(["one", "train_set", "two"], kind="stable")
    return points.loc[order.index]


def _common(frames: style.Frames, points: pd.DataFrame) -> pd.DataFrame:
    """The row `common` of `common_law` for every panel: a, b, p, delta_aicc, verdict."""
    found = series.need(frames, "common_law", "model", "train_set", "method", "a", "b", *VERDICT)
    found = found[found["method"] == "common"]
    shown = points[["model", "train_set", "panel"]].drop_duplicates()
    return shown.merge(found, on=["model", "train_set"]).set_index("panel")


def data(frames: style.Frames) -> pd.DataFrame:
    """One panel per model and training set: dots, own fits, the common fit, and the paper's dots."""
    points = _points(frames)
    ours = law_panels.law_rows(points, series.need(frames, "law", "run", "a", "b"))
    common = _common(frames, points)
    parts = [ours]
    for panel, here in points.groupby("panel", sort=False):
        if panel in common.index and np.isfinite(common.loc[panel, ["a", "b"]].astype(float)).all():
            ends = here[style.ENTROPY].min(), here[style.ENTROPY].max()
            names = {"panel": panel, "series": "common", "run": " ".join(dict.fromkeys(here["run"]))}
            parts.append(law_panels.fit_rows(common.loc[[panel]], *ends, **names))
        paper = published.load("fig01_right_qwen2.5")
        parts.append(law_panels.published_dots(panel, "Qwen2.5-7B, GRPO", paper[paper["model"] == "7B"]))
    return style.stack(parts)


def _draw_common(axes: Axes, drawn: pd.DataFrame) -> None:
    curve = style.by(drawn, series="common")
    axes.plot(curve["x"], curve["y"], color="#222222", linestyle=(0, (4, 1.2)), linewidth=2.0, zorder=4)
    axes.plot([], [], color="#222222", linestyle=(0, (4, 1.2)), linewidth=2.0, label="one fit for all")


def _title(panel: str, common: pd.DataFrame) -> str:
    label = style.model_label(panel)
    if panel not in common.index:
        return label
    row = common.loc[panel]
    numbers = [f"p = {row['p']:.2g}"] if np.isfinite(float(row["p"])) else []
    numbers += [f"ΔAICc = {row['delta_aicc']:+.1f}"] if np.isfinite(float(row["delta_aicc"])) else []
    verdict = row["verdict"] if isinstance(row["verdict"], str) else "not tested"
    return f"{label}\n{verdict}" + (f" ({', '.join(numbers)})" if numbers else "")


@style.styled
def draw(frames: style.Frames) -> Figure:
    """One panel per model and training set over one column."""
    drawn, common = data(frames), _common(frames, _points(frames))
    shown = list(dict.fromkeys(style.by(drawn, source="ours")["panel"]))
    if not shown:
        names = ", ".join(style.method_label(method) for method in METHODS)
        return panels.empty_figure(f"No run of {names}\nhas validation accuracies.")
    figure = Figure(figsize=(style.ONE_COLUMN, 0.4 + 2.4 * len(shown)))
    looks = {method: style.method_look(method) for method in METHODS}
    for axes, panel in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
        rows = style.by(drawn, panel=panel)
        if (rows["series"] == "common").any():
            _draw_common(axes, rows)
        law_panels.draw_law(axes, rows[rows["series"] != "common"], looks, _title(panel, common))
    return figure
