"""Fig 8: covariance drives entropy: covariance and entropy loss, and covariance by prompt difficulty."""

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import panels, published, series, style

TITLE = "Covariance and the change of entropy"
CAPTION = (
    "Strictly on-policy GRPO (one update per rollout, largest model). First: group-wise covariance of "
    "log-probability and probability times advantage, and minus the step-wise entropy difference, which "
    "first-order theory makes proportional; the two axes share their zero. Second: the covariance of prompts "
    "answered rightly in few, half and most of their samples. Lines are smoothed; bands are those of the "
    "smoothing, or with several seeds their range around the mean. Covariances are computed from the records of "
    "every response token, at the steps that keep them. Third and fourth: the paper's Fig 8 (Qwen2.5-7B), where "
    "covariance is positive, follows the entropy loss and is larger for easier prompts. Units are the same, the "
    "sizes depend on step size and task and do not compare."
)
LEFT = {
    "covariance": ("Covariance", style.COVARIANCE_COLOUR, "-"),
    "minus_entropy_difference": ("Minus entropy difference", style.ENTROPY_COLOUR, (0, (4, 1.2))),
}
SHOWN_ACCURACIES = (0.125, 0.5, 0.875)  # the paper's choice; the nearest that exist are drawn
GROUP = "group_accuracy="
RECORDS = "records"  # `source` of values that come from token records


def on_policy_runs(frames: style.Frames) -> list[str]:
    """The runs to show: all seeds of one model, training set and method with one update per rollout and records.

    Plain GRPO before other methods, then as `series.one_setting` chooses; empty when there is none.
    """
    runs = series.need(frames, "runs", "run", "model", "train_set", "method", "seed", "updates_per_rollout")
    dynamics = series.need(frames, "dynamics", "run", "source")
    recorded = dynamics.loc[dynamics["source"] == RECORDS, "run"]
    runs = runs[(runs["updates_per_rollout"] == 1) & runs["run"].isin(recorded)]
    plain = [
        style.method_look(method) in (style.METHODS["grpo"], style.METHODS["on-policy"])
        for method in runs["method"]
    ]
    runs = runs[plain] if any(plain) else runs
    runs = series.one_setting(runs, frames)
    first = style.method_order(runs["method"])[:1]
    return list(runs[runs["method"].isin(first)].sort_values(["seed", "run"])["run"])


def _shown(accuracies: list[float]) -> list[float]:
    nearest = [min(accuracies, key=lambda k: (abs(k - wanted), k)) for wanted in SHOWN_ACCURACIES if accuracies]
    return sorted(set(nearest))


def data(frames: style.Frames) -> pd.DataFrame:
    """Panels `left` (above) and `right` (below), ours and the paper's, against gradient steps."""
    runs = on_policy_runs(frames)
    columns = ("run", "series", "step", "gradient_steps", "source", "smooth", "low", "high")
    dynamics = series.need(frames, "dynamics", *columns)
    dynamics = dynamics[dynamics["run"].isin(runs)].dropna(subset=["smooth"])
    dynamics = dynamics[(dynamics["source"] == RECORDS) | (dynamics["series"] == "minus_entropy_difference")]
    groups = [name for name in dynamics["series"].unique() if name.startswith(GROUP)]
    shown = {GROUP + f"{k:g}" for k in _shown([float(name.removeprefix(GROUP)) for name in groups])}
    parts = []
    for name, curves in dynamics.groupby("series"):
        if name in LEFT or GROUP + f"{float(name.removeprefix(GROUP)):g}" in shown:
            panel, y_name = ("left", LEFT[name][0]) if name in LEFT else ("right", "Covariance")
            lines = series.lines(curves, "smooth", 1, panel=panel, series=name, y_name=y_name)
            if curves["run"].nunique() == 1:  # the band of its smoothing
                curves = curves.sort_values("step")
                lines = lines.assign(low=curves["low"].to_numpy(float), high=curves["high"].to_numpy(float))
            parts.append(lines)
    return style.stack([*parts, *_published_rows()]) if parts else style.stack([])


def _published_rows() -> list[pd.DataFrame]:
    names = {"source": "paper", "mark": "line", "x_name": style.GRADIENT_STEPS}
    left = [
        style.rows(
            panel="left",
            series=name,
            y_name=LEFT[name][0],
            x=curve["step"],
            y=curve["value"],
            low=curve["low"],
            high=curve["high"],
            **names,
        )
        for name, curve in published.load("fig08_left").groupby("quantity")
    ]
    right = [
        style.rows(
            panel="right",
            series=f"{GROUP}{k:g}",
            y_name="Covariance",
            x=curve["step"],
            y=curve["covariance"],
            **names,
        )
        for k, curve in published.load("fig08_right").groupby("group_accuracy")
    ]
    return left + right


def _draw_left(axes: Axes, drawn: pd.DataFrame) -> None:
    sides = (axes, style.second_axis(axes, *(colour for _, colour, _ in LEFT.values())))
    for side, (key, (name, colour, dashes)) in zip(sides, LEFT.items(), strict=True):
        curve = style.by(drawn, series=key)
        style.band(side, curve, colour)
        side.plot(curve["x"], curve["y"], color=colour, linestyle=dashes)
        side.set_ylabel(name)
    style.align_zero(*sides)
    axes.axhline(0, color="#999999", linewidth=0.6)


def _draw_right(axes: Axes, drawn: pd.DataFrame) -> None:
    shade = matplotlib.colormaps["cividis"]
    for name, curve in drawn.groupby("series", sort=True):
        accuracy = float(name.removeprefix(GROUP))
        colour = matplotlib.colors.to_hex(shade(0.9 * accuracy))
        style.band(axes, curve, colour)
        axes.plot(curve["x"], curve["y"], color=colour, label=f"{accuracy:.3g}")
    axes.axhline(0, color="#999999", linewidth=0.6)
    axes.set_ylabel("Covariance")


@style.styled
def draw(frames: style.Frames) -> Figure:
    """Ours above, the paper's below, over one column."""
    drawn = data(frames)
    if drawn.empty:
        text = "This experiment has no strictly on-policy run\n(one update per rollout) with token records."
        return panels.empty_figure(text)
    figure = Figure(figsize=(style.ONE_COLUMN, 6.6))
    grid = figure.subplots(4, 1, gridspec_kw={"height_ratios": [1.2, 1.1, 1, 1]})
    model = frames["runs"].set_index("run").at[on_policy_runs(frames)[0], "model"]
    places = [(source, panel) for source in ("ours", "paper") for panel in ("left", "right")]
    for axes, (source, panel) in zip(grid, places, strict=True):
        rows = style.by(drawn, panel=panel, source=source)
        if rows.empty:
            style.message(axes, "not measured")
            continue
        (_draw_left if panel == "left" else _draw_right)(axes, rows)
        name = f"{style.model_label(model)}, on-policy" if source == "ours" else "Paper, Qwen2.5-7B"
        if panel == "left":
            axes.set_title(f"{name}: covariance and entropy loss")
        else:
            panels.legend_above(axes, f"{name}: by group accuracy")
    grid[-1].set_xlabel(style.GRADIENT_STEPS)
    grid[1].set_xlabel(style.GRADIENT_STEPS)
    return figure
