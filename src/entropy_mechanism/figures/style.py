"""How all figures look, and how runs become the series that they show.

A figure module declares `TITLE` and `CAPTION` and has two functions: `data(frames)` returns everything that is
drawn, in the columns `COLUMNS`, and `draw(frames)` draws exactly that. `frames` maps the stem of an analysis file
to its frame; which ones, `registry` says.
"""

import functools
import io
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.typing import LineStyleType, RcKeyType

from ..analysis import columns
from ..files import replacing

Frames = Mapping[str, pd.DataFrame]

ONE_COLUMN = 3.3  # inches
TWO_COLUMNS = 6.9
PNG_DPI = 200

ENTROPY, ACCURACY, LENGTH = columns.ENTROPY, columns.ACCURACY, "length/mean"
BASELINE = columns.BASELINE

GRADIENT_STEPS = "Gradient steps"
ENTROPY_NAME = "Entropy (nats per token)"
ACCURACY_NAME = "Validation accuracy (%)"
LENGTH_NAME = "Response length (tokens)"

# Quantities have colours that no method has: two curves of one run must not look like two runs.
ACCURACY_COLOUR = "#332288"
ENTROPY_COLOUR = "#CC6677"
COVARIANCE_COLOUR = "#117F80"
TEXT_COLOUR = "#222222"

LOOK: dict[RcKeyType, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same letters on every machine
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "text.color": TEXT_COLOUR,
    "axes.labelcolor": TEXT_COLOUR,
    "axes.edgecolor": "#666666",
    "xtick.color": TEXT_COLOUR,
    "ytick.color": TEXT_COLOUR,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.2,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "entropy-mechanism",
}
METADATA = {
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a draw function under `LOOK` alone, whatever the user's own matplotlibrc says."""

    @functools.wraps(draw)
    def wrapped(*arguments: Any, **keywords: Any) -> Figure:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(LOOK)
            return draw(*arguments, **keywords)

    return wrapped


def render(figure: Figure, file_format: str) -> bytes:
    """The figure as `pdf` (fonts embedded), `png` or `svg`, without dates: equal figures give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(LOOK):
        figure.savefig(buffer, format=file_format, dpi=PNG_DPI, metadata=METADATA[file_format])
    return buffer.getvalue()


def save(figure: Figure, path: Path | str) -> None:
    """Write the figure in the format that the suffix of `path` names."""
    path = Path(path)
    content = render(figure, path.suffix.removeprefix("."))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


# --- Names and looks of series ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """Label, colour, marker and line style of one series."""

    label: str
    colour: str
    marker: str
    dashes: LineStyleType = "-"


# Okabe-Ito colours; markers repeat what the colour says, for grey printers.
METHODS = {
    "base": Look("Base model", "#8C8C8C", "X"),
    "grpo": Look("GRPO", "#222222", "o"),
    "clip-higher": Look("Clip-higher", "#E69F00", "^"),
    "clip-cov": Look("Clip-Cov", "#0072B2", "s"),
    "kl-cov": Look("KL-Cov", "#D55E00", "D"),
    "on-policy": Look("On-policy GRPO", "#009E73", "v"),
    "rloo": Look("RLOO", "#56B4E9", "P"),
    "reinforce++": Look("REINFORCE++", "#CC79A7", "<"),
    "reinforce++-baseline": Look("REINFORCE++ baseline", "#AA4466", "d"),
    "prime": Look("PRIME", "#6A3D9A", ">"),
}
_HUES = {"entropy": "#8C6D31", "reference": "#6A3D9A"}  # stem of the name: regularised methods of Fig 9 and 10
_OTHER_COLOURS = ("#56B4E9", "#CC79A7", "#6A3D9A", "#8C6D31", "#44AA99", "#AA4466")
_OTHER_MARKERS = ("P", "h", "<", ">", "d", "p", "*")
_FAMILIES = {  # stem of the name: panel, marker
    "qwen": ("Qwen", "o"),
    "mistral": ("Mistral", "s"),
    "llama": ("LLaMA and DeepSeek", "^"),  # one panel, as in the paper
    "deepseek": ("LLaMA and DeepSeek", "D"),
}
_SIZES = ((3e3, 1e6), (3e8, 4e10))
"""Non-embedding parameters, lightest to darkest: of tiny models, and of published ones, which no figure mixes."""
_CAPITALS = {"qwen": "Qwen", "llama": "LLaMA", "mistral": "Mistral", "deepseek": "DeepSeek", "nemo": "Nemo"}


def method_key(method: str) -> str:
    """One spelling of a method's name: `reinforce-plus-plus` is `reinforce++`, and `kl-cov-32b` is `kl-cov`."""
    return re.sub(r"-\d+b$", "", method.lower().replace("_", "-").replace("-plus-plus", "++"))


def method_look(method: str) -> Look:
    """The look of a method: fixed for the known ones, derived from the name alone for all others.

    Variants share the hue of their stem. The larger a coefficient at the end of the name (`entropy-0.05`), the
    darker; within a power of ten, where shades are close, markers go by its first digit (1 and 8 share one, 2
    and 9 too). Other names may look alike by chance: `method_looks` tells them apart.
    """
    key = method_key(method)
    if key in METHODS:
        return METHODS[key]
    hues = {name: look.colour for name, look in METHODS.items()} | _HUES
    stem = max((name for name in hues if key.startswith(f"{name}-")), key=len, default="")
    number = re.fullmatch(r"(.+?)-(\d+(?:\.\d+)?(?:e-?\d+)?)", key)
    code = zlib.crc32(key.encode())
    shade, marker = ((0.0, 0.25, 0.75, 1.0)[code % 4] if stem else 0.5), code // 4
    if number:
        value = float(number[2])
        digit, exponent = (int(part) for part in f"{value:.0e}".split("e"))
        shade, marker = (np.log10(value) / 4 + 1 if value else 0.0), digit + 2 * exponent
    unknown = zlib.crc32((number[1] if number else key).encode()) % len(_OTHER_COLOURS)
    colour = _shaded(hues.get(stem, _OTHER_COLOURS[unknown]), shade)
    variant = key.removeprefix(stem)[1:].replace("-", " ")
    label = f"{METHODS[stem].label}, {variant}" if stem in METHODS else method
    return Look(label, colour, _OTHER_MARKERS[marker % len(_OTHER_MARKERS)])


def _shaded(colour: str, shade: float) -> str:
    """A colour at 0.5, half way to white at 0 and half way to black at 1; beyond these as at the ends."""
    mixed = np.clip(shade, 0, 1) - 0.5
    rgb = np.array(to_rgb(colour))
    return to_hex(tuple(rgb + abs(mixed) * ((mixed < 0) - rgb)))


def method_looks(methods: Iterable[str]) -> dict[str, Look]:
    """Looks of the methods of one figure: `method_look`, with another marker where two methods share all."""
    looks: dict[str, Look] = {}
    for method in method_order(methods):
        look = method_look(method)
        taken = {other.marker for other in looks.values() if other.colour == look.colour}
        if look.marker in taken and method_key(method) not in METHODS:
            free = [marker for marker in _OTHER_MARKERS if marker not in taken]
            look = replace(look, marker=next(iter(free), look.marker))
        looks[method] = look
    return looks


def method_label(method: str) -> str:
    """Display name of a method."""
    return method_look(method).label


def method_order(methods: Iterable[str]) -> list[str]:
    """Distinct methods, known ones first in the order of `METHODS`, others by name."""
    known = list(METHODS)
    return sorted(
        set(methods),
        key=lambda name: (known.index(method_key(name)) if method_key(name) in known else len(known), name),
    )


def model_label(model: str) -> str:
    """Display name of a model: `qwen2.5-7b` becomes `Qwen2.5-7B`."""
    label = re.sub(r"(?<![a-z])(\d+(?:\.\d+)?)([bmk])(?![a-z])", lambda m: m[1] + m[2].upper(), model)
    return re.sub("|".join(_CAPITALS), lambda m: _CAPITALS[m[0]], label)


def family(model: str) -> str:
    """The family whose panel a model is drawn in: the letters that its name starts with, as displayed."""
    own = stem(model)
    return _FAMILIES[own][0] if own in _FAMILIES else own


def stem(model: str) -> str:
    """The letters that a model's name starts with: `qwen` of `qwen2.5-7b`."""
    return (re.match(r"[a-z]+", model.lower()) or [model])[0]


def model_order(models: Iterable[str], runs: pd.DataFrame | None = None) -> list[str]:
    """Distinct models by non-embedding parameters (from `runs`), unknown sizes last, then by name."""
    sizes: dict[str, float] = {}
    if runs is not None and "non_embedding_parameters" in runs and not runs.empty:
        sizes = runs.groupby("model")["non_embedding_parameters"].first().to_dict()
    return sorted(set(models), key=lambda model: (sizes.get(model, np.inf), model))


def model_look(model: str, non_embedding_parameters: float) -> Look:
    """The look of one model: darker with its size, in the middle of the scale when that is not known (NaN).

    It depends on nothing else. Lightness stays ordered for colour-blind readers and grey printers.
    """
    low, high = _SIZES[int(non_embedding_parameters > 3e7)]
    size = np.log(non_embedding_parameters / low) / np.log(high / low)
    shade = matplotlib.colormaps["viridis_r"](0.2 + 0.75 * np.clip(np.nan_to_num(size, nan=0.5), 0, 1))
    own = stem(model)
    marker = _FAMILIES[own][1] if own in _FAMILIES else _OTHER_MARKERS[zlib.crc32(own.encode()) % 7]
    return Look(model_label(model), to_hex(shade), marker)


# --- Runs to series -----------------------------------------------------------------------------------------

COLUMNS = ["panel", "source", "series", "run", "mark", "x_name", "x", "y_name", "y", "low", "high"]


def rows(**columns: Any) -> pd.DataFrame:
    """Rows of a figure's data: scalars are repeated along the arrays; `source` is `ours` unless given."""
    values: dict[str, Any] = {"source": "ours", "run": "", "low": np.nan, "high": np.nan} | columns
    length = max((np.size(value) for value in values.values() if not isinstance(value, str)), default=1)
    return pd.DataFrame(
        {
            name: [values[name]] * length
            if isinstance(values[name], str)
            else np.broadcast_to(np.asarray(values[name]), length)
            for name in COLUMNS
        }
    )


def stack(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One frame from many; an empty one with all columns when there is nothing to draw."""
    parts = [part for part in parts if not part.empty]
    if not parts:
        return pd.DataFrame({name: pd.Series(dtype="object") for name in COLUMNS})
    frame = pd.concat(parts, ignore_index=True)
    return frame.astype(dict.fromkeys(("x", "y", "low", "high"), float))


def of_method(frame: pd.DataFrame, method: str = BASELINE) -> pd.DataFrame:
    """The rows of one method, by default the baseline GRPO."""
    return frame[frame["method"].map(method_key) == method]


def largest_model(frame: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of the largest model in `frame`; a figure about one model shows this one."""
    known = [model for model in model_order(frame["model"], runs) if model in set(runs["model"])]
    return frame[frame["model"] == known[-1]] if known else frame.iloc[:0]


def over_seeds(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean and range (lowest, highest) of `column` over runs, one row per step that every run has measured.

    Returns step, gradient_steps, mean, low, high, sorted by step. A step that only some runs have is left
    out: there the mean would jump for no other reason than the missing run.
    """
    measured = frame.dropna(subset=[column])
    groups = measured.groupby("step", sort=True)
    table = groups.agg(
        gradient_steps=("gradient_steps", "mean"),
        mean=(column, "mean"),
        low=(column, "min"),
        high=(column, "max"),
        runs=("run", "nunique"),
    ).reset_index()
    return table[table["runs"] == measured["run"].nunique()].drop(columns="runs").reset_index(drop=True)


def between(low: float, high: float, points: int = 60) -> np.ndarray:
    """Entropies from high to low, evenly spaced on the log axis that they are drawn on."""
    return np.geomspace(high, low, points)


def by(drawn: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """The rows of a figure's data with the given values."""
    for name, value in wanted.items():
        drawn = drawn[drawn[name] == value]
    return drawn


def markdown(cells: pd.DataFrame) -> str:
    """A frame of strings as a Markdown table; without rows a sentence in its place."""
    if cells.empty:
        return "No run of this experiment has what this table shows.\n"
    lines = [list(cells.columns), ["---"] * len(cells.columns), *cells.astype(str).to_numpy().tolist()]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


# --- Axes ---------------------------------------------------------------------------------------------------


def message(axes: Axes, text: str) -> None:
    """Say in the place of a panel why it is empty."""
    axes.set_axis_off()
    axes.text(
        0.5,
        0.5,
        text,
        transform=axes.transAxes,
        ha="center",
        va="center",
        color="#777777",
        style="italic",
        wrap=True,
    )


def entropy_axis(axes: Axes) -> None:
    """Entropy on a reversed log axis with plain numbers: training runs from left to right."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if not axes.xaxis_inverted():
        axes.set_xlim(high, low)
    decades = np.log10(max(low, high) / min(low, high))
    subs = (1.0, 2.0, 5.0) if decades < 1.3 else (1.0, 3.0)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(ENTROPY_NAME)


def second_axis(axes: Axes, left_colour: str, right_colour: str) -> Axes:
    """A second y axis; each axis takes the colour of its curve, so that no reader has to guess."""
    right = axes.twinx()
    right.grid(False)
    right.spines["right"].set_visible(True)
    for side, target, colour in (("left", axes, left_colour), ("right", right, right_colour)):
        target.tick_params(axis="y", colors=colour)
        target.yaxis.label.set_color(colour)
        right.spines[side].set_color(colour)
    axes.spines["left"].set_visible(False)
    return right


def align_zero(left: Axes, right: Axes) -> None:
    """Put zero of both y axes at one height, so that signs can be compared; each keeps its upper limit."""
    limits = [(min(low, 0.0), max(high, 0.0)) for low, high in (left.get_ylim(), right.get_ylim())]
    share = max(-low / (high - low) for low, high in limits)
    for axes, (_, high) in zip((left, right), limits, strict=True):
        axes.set_ylim(-share / (1 - share) * high, high)


def band(axes: Axes, series: pd.DataFrame, colour: str) -> None:
    """Shade between `low` and `high` where both are known."""
    known = series.dropna(subset=["low", "high"])
    if len(known) > 1:
        axes.fill_between(known["x"], known["low"], known["high"], color=colour, alpha=0.15, linewidth=0)
