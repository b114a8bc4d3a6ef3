"""Interventions over the baseline's curve and ceiling, of this experiment and of the paper's Fig 11."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..analysis.ceiling import CEILING_COLUMNS, TOO_FEW, last_quarter
from ..analysis.law import law
from ..analysis.published import joined
from . import law_panels, published, style

TITLE = "Interventions against the baseline's curve and ceiling"
CAPTION = (
    "Accuracy (%) of each validation against the entropy of the same policy (nats per token; logarithmic, "
    "reversed axis). Line: R = -a exp(H) + b fitted to the baseline's runs; dashed: its ceiling b - a with 95 % "
    "interval. Filled dots: the last quarter of a run, in which it is compared with the curve at its own "
    "entropies; pale dots: before. The legend gives each method's verdict, with several seeds the most frequent "
    "and how many have it. Were the curve a law of states, interventions that keep entropy would move along it "
    "and stay below its ceiling. Below: the paper's Fig 11, read off the picture; there every intervention ends "
    "above the baseline's curve, and the baseline of the 7B model itself ends above its fitted ceiling."
)
POINTS = ["run", "model", "train_set", "method", "step", style.ENTROPY, style.ACCURACY]


def _tested(frames: style.Frames, name: str) -> pd.DataFrame:
    return frames.get(name, pd.DataFrame()).reindex(columns=CEILING_COLUMNS)


def _panels(points: pd.DataFrame, tests: pd.DataFrame, source: str) -> list[pd.DataFrame]:
    """Rows of one panel per model and training set that has a baseline's curve and an intervention."""
    usable = points.dropna(subset=[style.ENTROPY, style.ACCURACY])
    usable = usable[usable[style.ENTROPY] > 0].sort_values("step", kind="stable")
    tests = tests.dropna(subset=["baseline_a", "baseline_b"])
    sets = tests.groupby("model")["train_set"].nunique()
    parts = []
    for (model, train_set), mine in tests.groupby(["model", "train_set"], sort=False):
        here = usable[(usable["model"] == model) & (usable["train_set"] == train_set)]
        if here.empty:
            continue
        names = {
            "panel": f"{model}, {train_set}" if sets[model] > 1 else model,
            "source": source,
            **law_panels.AXES,
        }
        for method in style.method_order(here["method"]):
            for run, dots in here[here["method"] == method].groupby("run", sort=False):
                late = np.zeros(len(dots), dtype=bool)
                last_quarter(late)[:] = True
                for mark, chosen in (("dot", dots[~late]), ("last quarter", dots[late])):
                    xy = {"x": chosen[style.ENTROPY], "y": 100 * chosen[style.ACCURACY]}
                    parts.append(style.rows(mark=mark, series=method, run=run, **xy, **names))
        base = mine.iloc[0]
        grid = style.between(here[style.ENTROPY].min(), here[style.ENTROPY].max())
        curve = 100 * law(grid, base["baseline_a"], base["baseline_b"])
        parts.append(style.rows(mark="fit", series=base["baseline"], x=grid, y=curve, **names))
        limits = {key: 100 * base[f"baseline_ceiling_{key}"] for key in ("low", "high")}
        level = np.full(2, 100 * base["baseline_ceiling"])
        parts.append(
            style.rows(mark="ceiling", series=base["baseline"], x=grid[[0, -1]], y=level, **limits, **names)
        )
    return parts


def data(frames: style.Frames) -> pd.DataFrame:
    """Per panel: dots (`dot`, `last quarter`), the baseline's curve (`fit`) and its `ceiling`; percent."""
    curves = frames.get("curves", pd.DataFrame()).reindex(columns=POINTS)
    tests = _tested(frames, "ceiling")
    order = {model: i for i, model in enumerate(style.model_order(tests["model"].dropna(), frames.get("runs")))}
    tests = tests.sort_values("model", key=lambda models: models.map(order), kind="stable")
    paper = [
        joined(published.load(f"fig11_{model}"), "fig11", model, "dapo-math") for model in published.FIG11_MODELS
    ]
    ours = _panels(curves, tests, "ours")
    return style.stack([*ours, *_panels(pd.concat(paper), _tested(frames, "published_ceiling"), "paper")])


def _verdicts(tests: pd.DataFrame) -> dict[str, str]:
    """`Clip-Cov: above ceiling` by method, `(2 of 3)` where seeds differ."""
    labels = {}
    for method, mine in tests.groupby("method", sort=False):
        counts = mine["verdict"].fillna(TOO_FEW).value_counts()
        some = f" ({counts.iloc[0]} of {len(mine)})" if len(counts) > 1 else ""
        labels[method] = f"{style.method_label(method)}: {counts.index[0]}{some}"
    return labels


def _draw_panel(
    axes: Axes, drawn: pd.DataFrame, looks: dict[str, style.Look], verdicts: dict[str, str], title: str
) -> None:
    for mark, fill in (("dot", 0.25), ("last quarter", 1.0)):
        for method, dots in style.by(drawn, mark=mark).groupby("series", sort=False):
            look = looks[method]
            axes.plot(
                dots["x"], dots["y"], look.marker, color=look.colour, alpha=fill, markeredgewidth=0, markersize=2.6
            )
    curve, ceiling = style.by(drawn, mark="fit"), style.by(drawn, mark="ceiling")
    colour = looks[curve["series"].iloc[0]].colour
    axes.plot(curve["x"], curve["y"], color=colour, linewidth=1.1, zorder=3)
    axes.plot(ceiling["x"], ceiling["y"], color=colour, linestyle=(0, (3.5, 1.5)), linewidth=0.9, zorder=3)
    style.band(axes, ceiling, colour)
    style.entropy_axis(axes)
    dots = drawn[drawn["mark"].isin(["dot", "last quarter"])]["y"]
    room = 0.06 * (dots.max() - dots.min() or 1)
    axes.set_ylim(dots.min() - room, dots.max() + room)  # a curve continued to large entropies may leave the panel
    axes.set_ylabel(style.ACCURACY_NAME)
    axes.set_title(title)
    shown = dict.fromkeys(style.by(drawn, mark="last quarter")["series"])
    handles = []
    for method in shown:
        look, label = looks[method], verdicts.get(method, style.method_label(method))
        handles.append(Line2D([], [], color=look.colour, marker=look.marker, linestyle="", label=label))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=2, columnspacing=1.0)


@style.styled
def draw(frames: style.Frames) -> Figure:
    """One panel below the other over one column; the paper's last."""
    drawn = data(frames)
    keys = list(drawn[["source", "panel"]].drop_duplicates().itertuples(index=False, name=None))
    if not any(source == "ours" for source, _ in keys):
        keys.insert(0, ("ours", ""))
    heights = [2.7 if panel else 0.6 for _, panel in keys]
    figure = Figure(figsize=(style.ONE_COLUMN, sum(heights)))
    grid = figure.subplots(len(keys), 1, squeeze=False, height_ratios=heights)[:, 0]
    tests = {"ours": _tested(frames, "ceiling"), "paper": _tested(frames, "published_ceiling")}
    looks = style.method_looks(drawn["series"])
    for axes, (source, panel) in zip(grid, keys, strict=True):
        if not panel:
            style.message(axes, "No intervention with enough validations\nbeside a baseline in this experiment.")
            continue
        mine = tests[source]
        names = mine["model"].astype(str) + ", " + mine["train_set"].astype(str)
        mine = mine[(mine["model"] == panel) | (names == panel)]
        title = ("Paper, " if source == "paper" else "") + style.model_label(panel)
        _draw_panel(axes, style.by(drawn, source=source, panel=panel), looks, _verdicts(mine), title)
    return figure
