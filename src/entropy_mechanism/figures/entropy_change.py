"""Figure `entropy_change`: the change of entropy that updates make, against Lemma 1, and where it comes from."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..analysis.columns import ENTROPY_BEFORE_FILTER
from . import panels, style

TITLE = "Measured changes of entropy and Lemma 1"
CAPTION = (
    "Language models, exact over the vocabulary. Top: the change of entropy that a step's updates make after "
    "the same prefixes, against Lemma 1's prediction from the change of the logits, a dot per measured step, "
    "runs of the largest model, first seed. Middle: where the entropy of the first of these runs went: all of "
    "it (each rollout on prompts of its own), what the updates did to it after the prefixes they were made on, "
    "Lemma 1's prediction of that, and the rest, which comes of other prefixes; summed over the steps, a "
    "measured step standing for those up to the next one. Bottom: slope through the origin of the measured "
    "change on the predicted one, with 95 % interval; 1 where first order is enough."
)
PARTS = {
    "all": ("measured in all", "#222222", "-"),
    "same prefixes": ("after the same prefixes", "#0072B2", "-"),
    "predicted": ("Lemma 1", "#0072B2", (0, (2, 1))),
    "other prefixes": ("other prefixes", "#E69F00", "-"),
}
PREDICTED, MEASURED = "Change by Lemma 1 (nats)", "Change after the same prefixes (nats)"
SUM, SLOPE = "Change since the start (nats)", "Slope of measured on predicted change"
SMOOTHING = 9  # steps: rollouts have prompts of their own


def shown_runs(frames: style.Frames) -> list[str]:
    """Runs that measured the change: the largest model's, its lowest seed of each method, the baseline first."""
    changes, runs = (frames.get(name, pd.DataFrame()) for name in ("entropy_change", "runs"))
    if changes.empty or runs.empty:
        return []
    runs = style.largest_model(runs[runs["run"].isin(changes["run"])], runs).sort_values(["seed", "run"])
    first = runs.drop_duplicates(["train_set", "method"])
    order = {method: place for place, method in enumerate(style.method_order(first["method"]))}
    ordered = first.assign(place=first["method"].map(order)).sort_values("place", kind="stable")
    return [str(run) for run in ordered["run"]]


def data(frames: style.Frames) -> pd.DataFrame:
    """Panels `lemma`, `split` and `slopes`."""
    shown = shown_runs(frames)
    if not shown:
        return style.stack([])
    runs = frames["runs"].set_index("run")
    parts = []
    for run in shown:
        rows = frames["entropy_change"].query("run == @run")
        parts.append(
            style.rows(
                panel="lemma",
                series=runs.at[run, "method"],
                run=run,
                mark="dot",
                x_name=PREDICTED,
                x=rows["predicted"],
                y_name=MEASURED,
                y=rows["same_prefix"],
            )
        )
    return style.stack([*parts, *_split(frames, shown[0]), *_slopes(frames)])


def smoothed(values: pd.Series) -> pd.Series:
    """Running mean over `SMOOTHING` steps, of fewer at the ends."""
    return values.rolling(SMOOTHING, center=True, min_periods=1).mean()


def sums_before(steps: pd.Index, changes: pd.DataFrame) -> pd.DataFrame:
    """Sums of `same_prefix` and `predicted` over all steps of a run before each of `steps`, which are all it made.

    `changes` are the run's rows of entropy_change.parquet. A measured step stands for itself and those up to the
    next that is due; one that was due and has no value had no update.
    """
    changes = changes.set_index("step").sort_index()
    due = int(np.diff(changes.index).min()) if len(changes) > 1 else len(steps)
    each = changes.reindex(steps)[["same_prefix", "predicted"]]
    each = (each.ffill(limit=due - 1) if due > 1 else each).fillna(0.0)
    return each.cumsum().shift(1, fill_value=0.0)


def _split(frames: style.Frames, run: str) -> list[pd.DataFrame]:
    curve = frames["curves"].query("run == @run").sort_values("step")
    smooth = smoothed(curve.set_index("step")[ENTROPY_BEFORE_FILTER])
    all_of_it = smooth - smooth.iloc[0]
    sums = sums_before(smooth.index, frames["entropy_change"].query("run == @run"))
    series = {
        "all": all_of_it,
        "same prefixes": sums["same_prefix"],
        "predicted": sums["predicted"],
        "other prefixes": (all_of_it - sums["same_prefix"]).dropna(),
    }
    gradient_steps = curve.set_index("step")["gradient_steps"]
    names = {"panel": "split", "run": run, "mark": "line", "x_name": style.GRADIENT_STEPS, "y_name": SUM}
    return [
        style.rows(series=name, x=gradient_steps.reindex(values.index), y=values, **names)
        for name, values in series.items()
        if len(values)
    ]


def _slopes(frames: style.Frames) -> list[pd.DataFrame]:
    summary = frames.get("dynamics_summary", pd.DataFrame())
    if summary.empty or "same_prefix_slope" not in summary:
        return []
    measured = summary.dropna(subset=["same_prefix_slope"])
    return [
        style.rows(
            panel="slopes",
            series=row.method,
            run=row.run,
            mark="dot",
            x_name=SLOPE,
            x=row.same_prefix_slope,
            y_name="Run",
            y=float("nan"),
            low=row.same_prefix_slope_low,
            high=row.same_prefix_slope_high,
        )
        for row in measured.itertuples()
    ]


def _draw_lemma(axes: Axes, drawn: pd.DataFrame) -> None:
    for method, rows in drawn.groupby("series", sort=False):
        look = style.method_look(method)
        axes.plot(
            rows["x"], rows["y"], look.marker, color=look.colour, label=look.label, alpha=0.6, markersize=2.5
        )
    values = pd.concat([drawn["x"], drawn["y"]])
    ends = [values.min(), values.max()]
    axes.plot(ends, ends, color="#999999", linewidth=0.8, zorder=0)
    for line in (axes.axhline, axes.axvline):
        line(0, color="#999999", linewidth=0.4, zorder=0)
    axes.locator_params(nbins=5)
    axes.set_xlabel(PREDICTED)
    axes.set_ylabel(MEASURED)
    axes.legend(loc="upper left", fontsize=6, handlelength=1)


def _draw_split(axes: Axes, drawn: pd.DataFrame) -> None:
    for series, (label, colour, dashes) in PARTS.items():
        curve = style.by(drawn, series=series)
        axes.plot(curve["x"], curve["y"], color=colour, linestyle=dashes, label=label)
    axes.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    axes.set_xlabel(style.GRADIENT_STEPS)
    axes.set_ylabel(SUM)


def _draw_slopes(axes: Axes, drawn: pd.DataFrame) -> None:
    for height, row in enumerate(drawn.iloc[::-1].itertuples()):
        look = style.method_look(row.series)
        axes.plot([row.low, row.high], [height, height], color=look.colour)
        axes.plot(row.x, height, look.marker, color=look.colour)
    model, train_set, method, seed = zip(*(run.split("--") for run in drawn["run"]), strict=True)
    names = pd.DataFrame({"model": model, "train_set": train_set, "method": method, "seed": seed})
    varying = [name for name in names if names[name].nunique() > 1 and name != "method"]
    labels = [
        ", ".join([style.method_label(row["method"]), *(style.model_label(row[name]) for name in varying)])
        for _, row in names.iterrows()
    ]
    axes.axvline(1, color="#999999", linewidth=0.8, zorder=0)
    axes.axvline(0, color="#999999", linewidth=0.4, zorder=0)
    axes.set_yticks(range(len(labels)), labels[::-1])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.7, len(labels) - 0.3)
    axes.set_xlabel(SLOPE)


@style.styled
def draw(frames: style.Frames) -> Figure:
    """Three panels over one column."""
    drawn = data(frames)
    if drawn.empty:
        return panels.empty_figure(
            "No run shown here measures how its\nupdates change the entropy\n(measure_entropy_change_every)."
        )
    slopes = style.by(drawn, panel="slopes")
    heights = [2.4, 2.1, 0.7 + 0.16 * max(1, len(slopes))]
    figure = Figure(figsize=(style.ONE_COLUMN, 0.4 + sum(heights)))
    # Apart, since the last has wide labels, which would make the others narrow.
    parts = np.asarray(figure.subfigures(3, 1, height_ratios=heights))
    first = style.by(drawn, panel="split")["run"].iloc[0]
    model, _, method, _ = first.split("--")
    shown = {
        "lemma": (_draw_lemma, f"{style.model_label(model)}: after the same prefixes"),
        "split": (
            _draw_split,
            f"{style.model_label(model)}, {style.method_label(method)}: where the entropy goes",
        ),
        "slopes": (_draw_slopes, "First order, run by run"),
    }
    for part, (panel, (draw_panel, title)) in zip(parts, shown.items(), strict=True):
        axes = part.subplots()
        rows = style.by(drawn, panel=panel)
        if rows.empty:
            style.message(axes, "not measured")
            continue
        draw_panel(axes, rows)
        if panel == "split":
            panels.legend_above(axes, title)
        else:
            axes.set_title(title)
    return figure
