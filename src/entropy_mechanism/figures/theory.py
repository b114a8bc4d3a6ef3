"""Figure `theory`: the entropy formulas against exact changes, and cases where covariance is negative."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import panels, style

TITLE = "The entropy formulas on tabular softmax policies"
CAPTION = (
    "Exact in float64, without any training. Top: error of the first-order formulas against the size of the "
    "step, median and range over random bandits; an error that falls with the square of the step (slope 2) "
    "means a correct first order. Proposition 1 is exact for a single step; its line is for following the "
    "gradient. Second: in a decision process of several states, dotted lines are the formulas as printed, where "
    "what is missing is itself of first order (slope 1): Lemma 1 holds the visited states fixed, Theorem 1 "
    "leaves out their frequency. Solid lines have the missing terms. Third: entropy along exact policy gradient "
    "from constructed policies; dashed where the covariance is negative, and entropy rises. Bottom: what the "
    "first update was predicted to do to the entropy (open) and did (filled); towards open states, the "
    "covariance is positive and entropy rises all the same, since the new policy visits other states."
)
CHECKS = {
    "lemma-1": ("Lemma 1", "#0072B2", "o"),
    "proposition-1": ("Proposition 1", "#999999", "s"),
    "theorem-1": ("Theorem 1", "#D55E00", "^"),
    "theorem-2": ("Theorem 2", "#009E73", "D"),
}
LEFT_OUT = (("lemma-1", "followed"), ("theorem-1", "held"))
"""Checks in the decision process that are drawn in both forms."""
CASE_COLOURS = ("#222222", "#D55E00", "#0072B2", "#E69F00", "#8C8C8C", "#009E73")
STEP_SIZE, ERROR = "Step size", "Error"
UPDATE, ENTROPY = "Update", "Entropy (nats)"
CHANGE = "Change of entropy in the first update (nats)"


def data(frames: style.Frames) -> pd.DataFrame:
    """Panels `formulas`, `left out`, `entropy` and `first update`."""
    return style.stack([*_error_rows(frames), *_case_rows(frames)])


def _error_rows(frames: style.Frames) -> list[pd.DataFrame]:
    bandits, decisions = (frames.get(name, pd.DataFrame()) for name in ("tabular", "tabular_left_out"))
    drawn = [("formulas", check, rows) for check, rows in _grouped(bandits, "check")]
    for (check, states, form), rows in _grouped(decisions, ["check", "states", "form"]):
        if (check, states) in LEFT_OUT:
            drawn.append(("left out", f"{check}, {form}", rows))
    parts = []
    for panel, series, rows in drawn:
        errors = rows.groupby("step_size")["error"].agg(["median", "min", "max"]).reset_index()
        parts.append(
            style.rows(
                panel=panel,
                series=series,
                mark="line",
                x_name=STEP_SIZE,
                x=errors["step_size"],
                y_name=ERROR,
                y=errors["median"],
                low=errors["min"],
                high=errors["max"],
            )
        )
    return parts


def _case_rows(frames: style.Frames) -> list[pd.DataFrame]:
    parts = []
    for case, rows in _grouped(frames.get("counterexample_paths", pd.DataFrame()), "case"):
        names = {"panel": "entropy", "series": case, "x_name": UPDATE, "y_name": ENTROPY}
        rising = rows["covariance"] < 0
        for mark, chosen in (("line", ~rising), ("negative covariance", rising)):
            # one point beyond each stretch, so that the two lines meet
            y = rows["entropy"].where(chosen | chosen.shift(1, fill_value=False))
            if chosen.any():
                parts.append(style.rows(mark=mark, x=rows["update"], y=y, **names))
    for case, first in _grouped(frames.get("counterexamples", pd.DataFrame()), "case"):
        names = {"panel": "first update", "series": case, "x_name": CHANGE, "y_name": "Case", "y": np.nan}
        parts.append(style.rows(mark="predicted", x=first["predicted"], **names))
        parts.append(style.rows(mark="exact", x=first["entropy_change"], **names))
    return parts


def _grouped(frame: pd.DataFrame, by: str | list[str]) -> list[tuple[Any, pd.DataFrame]]:
    return [] if frame.empty else list(frame.groupby(by, sort=False))


def _slope(curve: pd.DataFrame) -> float:
    return float(np.polyfit(np.log(curve["x"]), np.log(curve["y"]), 1)[0])


def _draw_errors(axes: Axes, drawn: pd.DataFrame) -> None:
    for series, curve in drawn.groupby("series", sort=False):
        check, _, form = series.partition(", ")
        label, colour, marker = CHECKS[check]
        label = f"{', '.join(filter(None, (label, form)))}: {_slope(curve):.2f}"
        dashes = ":" if form == "printed" else "-"
        style.band(axes, curve, colour)
        axes.plot(curve["x"], curve["y"], color=colour, linestyle=dashes, marker=marker, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(STEP_SIZE)
    axes.set_ylabel(ERROR)
    axes.legend(loc="upper left", fontsize=6, title="slope", title_fontsize=6, handlelength=2.2, labelspacing=0.3)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 100)  # room for the legend


def _draw_entropy(axes: Axes, drawn: pd.DataFrame) -> None:
    for colour, (case, rows) in zip(CASE_COLOURS, drawn.groupby("series", sort=False), strict=False):
        for mark, dashes in (("line", "-"), ("negative covariance", (0, (2, 1)))):
            curve = style.by(rows, mark=mark)
            axes.plot(curve["x"], curve["y"], color=colour, linestyle=dashes)
        axes.plot([], [], color=colour, label=case)
    axes.set_xlabel(UPDATE)
    axes.set_ylabel(ENTROPY)
    axes.set_ylim(0, 1.45 * axes.get_ylim()[1])
    axes.legend(loc="upper right", ncols=2, fontsize=6, handlelength=1.2, columnspacing=1)


def _draw_first(axes: Axes, drawn: pd.DataFrame) -> None:
    cases = list(dict.fromkeys(drawn["series"]))[::-1]
    for height, case in enumerate(cases):
        colour = CASE_COLOURS[len(cases) - 1 - height]
        rows = style.by(drawn, series=case).set_index("mark")["x"]
        axes.plot(rows.tolist(), [height, height], color=colour, linewidth=0.8)
        axes.plot(rows["predicted"], height, "o", color="white", markeredgecolor=colour, markersize=5)
        axes.plot(rows["exact"], height, "o", color=colour, markersize=3.5)
    axes.axvline(0, color="#999999", linewidth=0.6)
    axes.set_yticks(range(len(cases)), [case.replace(" open", "\nopen") for case in cases])
    axes.tick_params(axis="y", length=0)
    axes.margins(y=0.15)
    axes.set_xlabel(CHANGE)


@style.styled
def draw(frames: style.Frames) -> Figure:
    """Four panels over one column."""
    drawn = data(frames)
    if drawn.empty:
        return panels.empty_figure("The checks on tabular policies were not made.")
    figure = Figure(figsize=(style.ONE_COLUMN, 8.0))
    grid = figure.subplots(4, 1, gridspec_kw={"height_ratios": [1.25, 1.25, 1.2, 0.9]})
    contents = {
        "formulas": (_draw_errors, "Bandits: formulas as printed"),
        "left out": (_draw_errors, "Decision processes: as printed, and complete"),
        "entropy": (_draw_entropy, "Constructed cases (dashed: covariance < 0)"),
        "first update": (_draw_first, "First update: predicted (open), exact (filled)"),
    }
    for axes, (panel, (draw_panel, title)) in zip(grid, contents.items(), strict=True):
        rows = style.by(drawn, panel=panel)
        if rows.empty:
            style.message(axes, "not computed")
            continue
        draw_panel(axes, rows)
        axes.set_title(title)
    return figure
