"""Fig 8: covariance drives entropy. Left: covariance and entropy loss. Right: by prompt difficulty."""

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import published, registry, style

INPUTS = registry.FIGURES["fig08"].inputs
TITLE = "Covariance and the change of entropy"
CAPTION = (
    "A strictly on-policy GRPO run (one update per rollout, largest model, first seed). Left: group-wise "
    "covariance of log-probability and probability times advantage, and minus the step-wise entropy "
    "difference, which first-order theory makes proportional; smoothed, with bands; the two axes share "
    "their zero. Right: the covariance of prompts answered rightly in few, half and most of their "
    "samples. Covariances are computed from the records of every response token, at the steps that keep "
    "them. Below: the paper's Fig 8 (Qwen2.5-7B), where covariance is positive, follows the entropy "
    "loss and is larger for easier prompts. Units are the same, the sizes depend on step size and task "
    "and do not compare."
)
LEFT = {
    "covariance": ("Covariance", style.COVARIANCE_COLOUR, "-"),
    "minus_entropy_difference": ("Minus entropy difference", style.ENTROPY_COLOUR, (0, (4, 1.2))),
}
SHOWN_ACCURACIES = (0.125, 0.5, 0.875)  # the paper's choice; the nearest that exist are drawn
GROUP = "group_accuracy="
RECORDS = "records"  # `source` of values that come from token records


def on_policy_run(frames: style.Frames) -> str | None:
    """The run to show: one update per rollout, token records, GRPO, largest model, lowest seed; None without."""
    runs, dynamics = frames["runs"], frames["dynamics"]
    recorded = dynamics.loc[dynamics["source"] == RECORDS, "run"]
    runs = runs[(runs["updates_per_rollout"] == 1) & runs["run"].isin(recorded)]
    plain = [
        style.method_look(method) in (style.METHODS["grpo"], style.METHODS["on-policy"])
        for method in runs["method"]
    ]
    runs = runs[plain] if any(plain) else runs
    runs = style.largest_model(runs, frames["runs"]).sort_values(["seed", "run"])
    return None if runs.empty else str(runs["run"].iloc[0])


def _shown(accuracies: list[float]) -> list[float]:
    nearest = [min(accuracies, key=lambda k: (abs(k - wanted), k)) for wanted in SHOWN_ACCURACIES if accuracies]
    return sorted(set(nearest))


def data(frames: style.Frames) -> pd.DataFrame:
    """Panels `left` and `right`, ours and the paper's, against gradient steps."""
    run = on_policy_run(frames)
    if run is None:
        return style.stack([])
    dynamics = frames["dynamics"]
    dynamics = dynamics[dynamics["run"] == run].dropna(subset=["smooth"])
    dynamics = dynamics[(dynamics["source"] == RECORDS) | (dynamics["series"] == "minus_entropy_difference")]
    groups = [name for name in dynamics["series"].unique() if name.startswith(GROUP)]
    shown = {GROUP + f"{k:g}" for k in _shown([float(name.removeprefix(GROUP)) for name in groups])}
    parts = []
    for series, curve in dynamics.groupby("series"):
        if series in LEFT or GROUP + f"{float(series.removeprefix(GROUP)):g}" in shown:
            curve = curve.sort_values("step")
            name = LEFT[series][0] if series in LEFT else "Covariance"
            parts.append(
                style.rows(
                    panel="left" if series in LEFT else "right",
                    series=series,
                    run=run,
                    mark="line",
                    x_name=style.GRADIENT_STEPS,
                    x=curve["gradient_steps"],
                    y_name=name,
                    y=curve["smooth"],
                    low=curve["low"],
                    high=curve["high"],
                )
            )
    return style.stack([*parts, *_published_rows()]) if parts else style.stack([])


def _published_rows() -> list[pd.DataFrame]:
    names = {"source": "paper", "mark": "line", "x_name": style.GRADIENT_STEPS}
    left = [
        style.rows(
            panel="left",
            series=series,
            y_name=LEFT[series][0],
            x=curve["step"],
            y=curve["value"],
            low=curve["low"],
            high=curve["high"],
            **names,
        )
        for series, curve in published.load("fig08_left").groupby("quantity")
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
    for side, (series, (name, colour, dashes)) in zip(sides, LEFT.items(), strict=True):
        curve = style.by(drawn, series=series)
        style.band(side, curve, colour)
        side.plot(curve["x"], curve["y"], color=colour, linestyle=dashes)
        side.set_ylabel(name)
    style.align_zero(*sides)
    axes.axhline(0, color="#999999", linewidth=0.6)


def _draw_right(axes: Axes, drawn: pd.DataFrame) -> None:
    shade = matplotlib.colormaps["cividis"]
    for series, curve in drawn.groupby("series", sort=True):
        accuracy = float(series.removeprefix(GROUP))
        colour = matplotlib.colors.to_hex(shade(0.9 * accuracy))
        style.band(axes, curve, colour)
        axes.plot(curve["x"], curve["y"], color=colour, label=f"{accuracy:.3g}")
    axes.axhline(0, color="#999999", linewidth=0.6)
    axes.set_ylim(top=1.2 * max(axes.get_ylim()[1], 0))  # room for the legend
    axes.set_ylabel("Covariance")


@style.styled
def draw(frames: style.Frames) -> Figure:
    """Ours above, the paper's below, over two columns."""
    drawn = data(frames)
    if drawn.empty:
        figure = Figure(figsize=(style.TWO_COLUMNS, 1.6))
        style.message(
            figure.add_subplot(),
            "This experiment has no strictly on-policy run (one update per rollout) with token records.",
        )
        return figure
    figure = Figure(figsize=(style.TWO_COLUMNS, 4.1))
    grid = figure.subplots(2, 2, gridspec_kw={"height_ratios": [1.25, 1]})
    model = frames["runs"].set_index("run").at[on_policy_run(frames), "model"]
    for (left, right), source, name in zip(
        grid, ("ours", "paper"), (f"{style.model_label(model)}, on-policy", "Paper, Qwen2.5-7B"), strict=True
    ):
        for axes, panel, draw_panel in ((left, "left", _draw_left), (right, "right", _draw_right)):
            rows = style.by(drawn, panel=panel, source=source)
            if rows.empty:
                style.message(axes, "not measured")
                continue
            draw_panel(axes, rows)
            axes.set_xlabel(style.GRADIENT_STEPS)
            axes.set_title(
                f"{name}: " + ("covariance and entropy loss" if panel == "left" else "by group accuracy")
            )
        if right.axison:
            right.legend(title="group accuracy", ncols=3, loc="upper right", title_fontsize=6.5)
    return figure
