"""Fig 11: entropy, response length and accuracy of GRPO and the three ways to keep its entropy."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import published, registry, style

INPUTS = registry.FIGURES["fig11"].inputs
TITLE = "Keeping the entropy: GRPO, Clip-higher, Clip-Cov, KL-Cov"
CAPTION = (
    "Policy entropy (nats per token), mean response length (tokens) and validation accuracy (%) against "
    "gradient steps; one row per model, lines are means over seeds and bands their range. Last row: the "
    "paper's Fig 11 for Qwen2.5-7B (average test accuracy), read off the picture; gaps are stretches that "
    "could not be read. There Clip-Cov and KL-Cov end with more entropy, longer answers and higher "
    "accuracy than GRPO. Sizes do not compare: model, task and number of steps differ."
)
METHODS = ("grpo", "clip-higher", "clip-cov", "kl-cov")
QUANTITIES = {  # column, factor to the displayed unit, axis label, name in the published file
    "entropy": (style.ENTROPY, 1, style.ENTROPY_NAME, "entropy"),
    "length": (style.LENGTH, 1, style.LENGTH_NAME, "response_length"),
    "accuracy": (style.ACCURACY, 100, style.ACCURACY_NAME, "accuracy_percent"),
}
PAPER_MODEL = "qwen2.5-7b"


def _models(curves: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """Models trained with at least two of the methods; without any such model, the largest."""
    counts = curves.groupby("model")["method"].nunique()
    compared = style.model_order(counts.index[counts > 1], runs)
    return compared or style.model_order(curves["model"], runs)[-1:]


def data(frames: style.Frames) -> pd.DataFrame:
    """One panel per model and quantity, `model / quantity`; series are methods."""
    curves = pd.concat([style.of_method(frames["curves"], method).assign(method=method) for method in METHODS])
    parts = []
    for model in _models(curves, frames["runs"]):
        for quantity, (column, unit, name, _) in QUANTITIES.items():
            for method in METHODS:
                runs = curves[(curves["model"] == model) & (curves["method"] == method)]
                series = style.over_seeds(runs, column)
                if series.empty:
                    continue
                parts.append(
                    style.rows(
                        panel=f"{model} / {quantity}",
                        series=method,
                        run=" ".join(sorted(set(runs["run"]))),
                        mark="line",
                        x_name=style.GRADIENT_STEPS,
                        x=series["gradient_steps"],
                        y_name=name,
                        y=unit * series["mean"],
                        low=unit * series["low"],
                        high=unit * series["high"],
                    )
                )
    return style.stack([*parts, *_published_rows()]) if parts else style.stack([])


def _published_rows() -> list[pd.DataFrame]:
    paper = published.load(f"fig11_{PAPER_MODEL}")
    parts = []
    for quantity, (_, _, name, published_name) in QUANTITIES.items():
        for method in METHODS:
            wanted = (paper["quantity"] == published_name) & (paper["series"].str.lower() == method)
            curve = published.with_gaps(paper[wanted])
            parts.append(
                style.rows(
                    panel=f"{PAPER_MODEL} / {quantity}",
                    source="paper",
                    series=method,
                    mark="line",
                    x_name=style.GRADIENT_STEPS,
                    x=curve["step"],
                    y_name=name,
                    y=curve["value"],
                )
            )
    return parts


def _draw_panel(axes: Axes, drawn: pd.DataFrame, quantity: str) -> None:
    width = 0.8 if set(drawn["source"]) == {"paper"} else 1.1
    for i, method in enumerate(METHODS):
        curve = style.by(drawn, series=method)
        if curve.empty:
            continue
        look = style.method_look(method)
        style.band(axes, curve, look.colour)
        # Sparse markers, shifted from method to method, tell lines apart where colour cannot.
        axes.plot(
            curve["x"],
            curve["y"],
            color=look.colour,
            marker=look.marker,
            markevery=(0.03 + 0.05 * i, 0.2),
            linewidth=width,
        )
    axes.set_ylabel(QUANTITIES[quantity][2])
    if quantity == "entropy":
        axes.set_ylim(bottom=0)


@style.styled
def draw(frames: style.Frames) -> Figure:
    """A row of three panels per model, the paper's row last, over two columns."""
    drawn = data(frames)
    if drawn.empty:
        figure = Figure(figsize=(style.TWO_COLUMNS, 1.6))
        style.message(figure.add_subplot(), f"No run of {', '.join(METHODS)} in this experiment.")
        return figure
    sources = drawn[["panel", "source"]].assign(model=drawn["panel"].str.rsplit(" / ", n=1).str[0])
    models = list(sources[["model", "source"]].drop_duplicates().itertuples(index=False, name=None))
    figure = Figure(figsize=(style.TWO_COLUMNS, 0.4 + 1.85 * len(models)))
    for axes_row, (model, source) in zip(figure.subplots(len(models), 3, squeeze=False), models, strict=True):
        for axes, quantity in zip(axes_row, QUANTITIES, strict=True):
            rows = style.by(drawn, panel=f"{model} / {quantity}", source=source)
            if rows.empty:
                style.message(axes, "not measured")
                continue
            _draw_panel(axes, rows, quantity)
            axes.set_xlabel(style.GRADIENT_STEPS)
        axes_row[1].set_title(("Paper, " if source == "paper" else "") + style.model_label(model))
    ours = set(style.by(drawn, source="ours")["series"])
    figure.legend(
        handles=[_handle(style.method_look(method), method in ours) for method in METHODS],
        loc="outside upper center",
        ncols=len(METHODS),
    )
    return figure


def _handle(look: style.Look, ours: bool) -> Line2D:
    label = look.label if ours else f"{look.label} (paper only)"
    return Line2D([], [], color=look.colour, marker=look.marker, label=label)
