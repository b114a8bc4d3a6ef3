"""Fig 3: validation accuracy against policy entropy with the fitted law, one panel per model family."""

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..analysis.law import law as evaluate_law
from . import published, registry, style

INPUTS = registry.FIGURES["fig03"].inputs
TITLE = "Accuracy against entropy, by model family"
CAPTION = (
    "Each dot is one validation of a GRPO run: its accuracy (%) against the policy entropy of the same "
    "policy (nats per token; logarithmic, reversed axis, so training runs from left to right). Lines are "
    "the fits of R = -a exp(H) + b, one per run. The paper's Fig 3 shows the same for eleven models of "
    "0.5 to 32 billion parameters in three panels; where a panel here holds Qwen2.5 models, its published "
    "curves lie behind in grey."
)


def law_rows(frames: style.Frames, panel: Callable[[str], str]) -> pd.DataFrame:
    """Dots and fitted curves of all GRPO runs; `panel` names the panel of a model. Accuracies in percent."""
    curves = style.of_method(frames["curves"]).dropna(subset=[style.ENTROPY, style.ACCURACY])
    curves = curves[curves[style.ENTROPY] > 0]  # the axis is logarithmic
    law = frames["law"].set_index("run")
    several_train_sets = curves["train_set"].nunique() > 1
    parts = []
    for model in style.model_order(curves["model"], frames["runs"]):
        for (run, train_set), points in curves[curves["model"] == model].groupby(["run", "train_set"]):
            names = {
                "panel": panel(model),
                "series": f"{model} on {train_set}" if several_train_sets else model,
                "run": run,
                "x_name": style.ENTROPY_NAME,
                "y_name": style.ACCURACY_NAME,
            }
            entropy = points[style.ENTROPY]
            parts.append(style.rows(mark="dot", x=entropy, y=100 * points[style.ACCURACY], **names))
            if run in law.index and len(points) > 1:
                grid = style.between(entropy.min(), entropy.max())
                fitted = evaluate_law(grid, law.at[run, "a"], law.at[run, "b"])
                parts.append(style.rows(mark="fit", x=grid, y=100 * fitted, **names))
    return style.stack(parts)


def published_rows(panel: str) -> pd.DataFrame:
    """The five published curves of Qwen2.5."""
    return style.stack(
        style.rows(
            panel=panel,
            source="paper",
            series=f"Qwen2.5-{size}",
            mark="fit",
            x_name=style.ENTROPY_NAME,
            x=curve["entropy"],
            y_name=style.ACCURACY_NAME,
            y=curve["accuracy_percent"],
        )
        for size, curve in published.load("fig01_right_fits").groupby("model", sort=False)
    )


def draw_law(axes: Axes, drawn: pd.DataFrame, looks: dict[str, style.Look], paper_label: str) -> None:
    """Draw one panel of `law_rows` and `published_rows`; a model is named once however many runs it has."""
    for i, (_, curve) in enumerate(style.by(drawn, source="paper").groupby("series", sort=False)):
        axes.plot(curve["x"], curve["y"], color="#BDBDBD", linewidth=0.9, zorder=1, label="" if i else paper_label)
    named = set()
    for (series, _), curve in style.by(drawn, source="ours").groupby(["series", "run"], sort=False):
        look = looks[series.split(" on ")[0]]
        label = series.replace(series.split(" on ")[0], look.label) if series not in named else None
        named.add(series)
        dots, fit = (style.by(curve, mark=mark) for mark in ("dot", "fit"))
        axes.plot(fit["x"], fit["y"], color=look.colour, zorder=3)
        axes.plot(
            dots["x"],
            dots["y"],
            look.marker,
            color=look.colour,
            alpha=0.75,
            markeredgewidth=0,
            label=label,
            zorder=2,
        )
    style.entropy_axis(axes)
    axes.set_ylabel(style.ACCURACY_NAME)
    axes.margins(y=0.08)
    axes.legend(loc="best", handlelength=1.2)


def data(frames: style.Frames) -> pd.DataFrame:
    """Dots and curves per family; the published curves where a family of ours is Qwen2.5."""
    ours = law_rows(frames, style.family)
    qwen = style.by(ours, panel="Qwen")
    comparable = any(series.startswith("qwen2.5") for series in qwen["series"])
    return style.stack([ours, published_rows("Qwen")] if comparable else [ours])


@style.styled
def draw(frames: style.Frames) -> Figure:
    """One panel per family, in the order of the families' smallest models."""
    drawn = data(frames)
    panels = list(dict.fromkeys(drawn["panel"]))
    figure = Figure(figsize=(style.ONE_COLUMN if len(panels) < 2 else style.TWO_COLUMNS, 2.5))
    if not panels:
        style.message(figure.add_subplot(), "No GRPO run has validation accuracies.")
        return figure
    looks = style.size_looks(frames["runs"])
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw_law(axes, style.by(drawn, panel=panel), looks, "paper's fits")
        axes.set_title(f"{panel} models")
    return figure
