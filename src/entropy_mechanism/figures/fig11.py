"""Fig 11: entropy, response length and accuracy of GRPO and the three ways to keep its entropy."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import panels, published, series, style

TITLE = "Keeping the entropy: GRPO, Clip-higher, Clip-Cov, KL-Cov"
CAPTION = (
    "Policy entropy (nats per token), mean response length (tokens) and validation accuracy (%) against gradient "
    "steps; lines are means over seeds and bands their range. Below: the paper's Fig 11 for Qwen2.5-7B and 32B "
    "(average test accuracy), read off the pictures; gaps are stretches that could not be read. There Clip-Cov "
    "and KL-Cov end with more entropy, longer answers and higher accuracy than GRPO. Sizes do not compare: model, "
    "task and number of steps differ; where a model is the paper's own, its curves lie faint and dotted behind "
    "ours."
)
METHODS = ("grpo", "clip-higher", "clip-cov", "kl-cov")
QUANTITIES = {  # column, factor to the displayed unit, axis label, name in the published file
    "entropy": (style.ENTROPY, 1, style.ENTROPY_NAME, "entropy"),
    "length": (style.LENGTH, 1, style.LENGTH_NAME, "response_length"),
    "accuracy": (style.ACCURACY, 100, style.ACCURACY_NAME, "accuracy_percent"),
}
SHORT = {"entropy": "Entropy\n(nats per token)", "length": "Length\n(tokens)", "accuracy": "Accuracy\n(%)"}
PAPER_MODEL = "qwen2.5-7b"


def _compared(curves: pd.DataFrame, frames: style.Frames) -> pd.DataFrame:
    """Rows of models and training sets with at least two of the methods; without any such, of one with one."""
    counts = curves.groupby(["model", "train_set"])["method"].transform("nunique")
    return curves[counts > 1] if (counts > 1).any() else series.one_setting(curves, frames)


def data(frames: style.Frames) -> pd.DataFrame:
    """One panel per model (and training set, where it has several) and quantity; series are methods."""
    curves = series.measured(frames, "curves")
    curves = curves.assign(method=curves["method"].map(style.method_key))
    curves = _compared(curves[curves["method"].isin(METHODS)], frames)
    curves = curves.assign(setting=series.by_setting(curves))
    runs = series.need(frames, "runs", "model", "non_embedding_parameters")
    parts = []
    for model in style.model_order(curves["model"], runs):
        for setting, here in curves[curves["model"] == model].groupby("setting", sort=False):
            for quantity, (column, unit, name, _) in QUANTITIES.items():
                for method in METHODS:
                    mine = series.measured({"curves": here[here["method"] == method]}, "curves", column)
                    names = {"panel": f"{setting} / {quantity}", "series": method, "y_name": name}
                    parts.append(series.lines(mine, column, unit, **names))
    ours = style.stack(parts)
    return style.stack([ours, *_published_rows()]) if len(ours) else ours


def _published_rows() -> list[pd.DataFrame]:
    parts = []
    for model in published.FIG11_MODELS:
        paper = published.load(f"fig11_{model}")
        for quantity, (_, _, name, published_name) in QUANTITIES.items():
            for method in METHODS:
                wanted = (paper["quantity"] == published_name) & (paper["series"].str.lower() == method)
                curve = published.with_gaps(paper[wanted])
                names = {"panel": f"{model} / {quantity}", "source": "paper", "series": method, "mark": "line"}
                x, y = curve["step"], curve["value"]
                parts.append(style.rows(x_name=style.GRADIENT_STEPS, x=x, y_name=name, y=y, **names))
    return parts


def _draw_panel(axes: Axes, drawn: pd.DataFrame, quantity: str) -> None:
    alone = len(set(drawn["source"])) == 1
    for i, method in enumerate(METHODS):
        look = style.method_look(method)
        ours, paper = (style.by(drawn, series=method, source=source) for source in ("ours", "paper"))
        if len(paper) and not alone:
            axes.plot(paper["x"], paper["y"], ":", color=look.colour, alpha=0.5, linewidth=0.9)
        curve = paper if alone and len(paper) else ours
        if curve.empty:
            continue
        style.band(axes, curve, look.colour)
        # Sparse markers, shifted from method to method, tell lines apart where colour cannot.
        axes.plot(
            curve["x"],
            curve["y"],
            color=look.colour,
            marker=look.marker,
            markevery=(0.03 + 0.05 * i, 0.2),
            linewidth=1.1 if len(ours) else 0.8,
            markersize=3.2 if len(ours) else 2.6,
        )
    if quantity == "entropy":
        panels.log_entropy(axes, drawn)


def _blocks(drawn: pd.DataFrame) -> list[list[str]]:
    """Models side by side, at most two; the paper's own models last unless they are ours too."""
    models = drawn["panel"].str.rsplit(" / ", n=1).str[0]
    ours = list(dict.fromkeys(models[drawn["source"] == "ours"]))
    others = [model for model in published.FIG11_MODELS if model not in ours]
    return [models[i : i + 2] for models in (ours, others) for i in range(0, len(models), 2)]


@style.styled
def draw(frames: style.Frames) -> Figure:
    """Three panels below each other per model, the paper's last, over one column."""
    drawn = data(frames)
    if drawn.empty:
        return panels.empty_figure(f"No run of {', '.join(METHODS)}\nin this experiment.")
    ours = set(drawn.loc[drawn["source"] == "ours", "panel"].str.rsplit(" / ", n=1).str[0])
    blocks = _blocks(drawn)
    heights = [3.6 if block[0] in ours else 2.9 for block in blocks]
    figure = Figure(figsize=(style.ONE_COLUMN, 0.5 + sum(heights)))
    parts = figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, block in zip(parts, blocks, strict=True):
        grid = part.subplots(len(QUANTITIES), len(block), squeeze=False, sharex="col")
        for column, model in zip(grid.T, block, strict=True):
            for axes, quantity in zip(column, QUANTITIES, strict=True):
                rows = style.by(drawn, panel=f"{model} / {quantity}").dropna(subset=["x"])
                if rows.empty:
                    style.message(axes, "not measured")
                else:
                    _draw_panel(axes, rows, quantity)
                if model == block[0]:
                    axes.set_ylabel(SHORT[quantity])
            column[-1].set_xlabel(style.GRADIENT_STEPS)
            column[0].set_title(("" if model in ours else "Paper, ") + style.model_label(model))
        part.align_ylabels(grid[:, 0])
    measured = set(style.by(drawn, source="ours")["series"])
    figure.legend(
        handles=[_handle(style.method_look(method), method in measured) for method in METHODS],
        loc="outside upper center",
        ncols=2,
    )
    return figure


def _handle(look: style.Look, ours: bool) -> Line2D:
    label = look.label if ours else f"{look.label} (paper only)"
    return Line2D([], [], color=look.colour, marker=look.marker, label=label)
