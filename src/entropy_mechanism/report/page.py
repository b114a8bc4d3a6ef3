"""One HTML file out of claims, numbers, figures and tables. Images and styles are inside: it loads nothing."""

import base64
import math
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import markupsafe
import pandas as pd

from ..figures import style
from .beside import Beside
from .claims import RULES, VERDICTS, Judged
from .numbers import Headlines

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class FigureEntry:
    """A figure. `image` (SVG or PNG) is None when it cannot be shown; `note` then says why.

    `links` are relative addresses of its files by what they are; `runs` the runs it was drawn from.
    """

    name: str
    title: str
    caption: str
    image: bytes | None
    links: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableEntry:
    """A table. Strings are shown as they are (`**x**` in bold), numbers with four significant digits.

    `frame` is None when it cannot be shown; `note` then says why.
    """

    name: str
    title: str
    caption: str
    frame: pd.DataFrame | None
    links: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that the page shows.

    `runs` has one row per run with the columns RUN_COLUMNS. `comparison` is the frame of `numbers.comparison`.
    `beside` is the comparison with another experiment. `run_link` turns an MLflow run id into an address
    (`http://127.0.0.1:5000/#/experiments/1/runs/{}`); empty: ids are shown without a link.
    """

    experiment: str
    created: str
    revision: str
    claims: tuple[Judged, ...]
    headlines: Headlines
    figures: tuple[FigureEntry, ...]
    tables: tuple[TableEntry, ...]
    runs: pd.DataFrame
    comparison: pd.DataFrame
    beside: Beside | None = None
    commands: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    run_link: str = ""


@dataclass(frozen=True)
class _Cell:
    html: markupsafe.Markup
    sort: str
    number: bool

    @property
    def kind(self) -> str:
        """Its CSS class: numbers align right, short texts do not wrap."""
        return "number" if self.number else "short" if len(self.sort) <= 20 else ""


@dataclass(frozen=True)
class _Tile:
    label: str
    value: str
    detail: str


def _number(value: float, pattern: str = "{:.3g}") -> str:
    return "–" if value is None or math.isnan(value) else pattern.format(value).replace("-", "−")


def _percent(value: float) -> str:
    return _number(100 * value, "{:.1f}") + ("" if math.isnan(value) else " %")


def _significant(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.4g}"


def _cell(value: str | float | None, link: str = "") -> _Cell:
    if isinstance(value, str):
        text = markupsafe.escape(value)
        html = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(text))
        plain = value.replace("**", "")
        leading = re.match(r"[-−+]?\d+(\.\d+)?(?=$|\s)", plain)
        if link and value:
            html = f'<a href="{markupsafe.escape(link.format(value))}">{html}</a>'
        sort = str(float(leading[0].replace("−", "-"))) if leading else plain
        return _Cell(markupsafe.Markup(html), sort, bool(leading))
    if value is None or pd.isna(value):
        return _Cell(markupsafe.Markup("–"), "", True)
    shown = _significant(value).replace("-", "−")
    return _Cell(markupsafe.escape(shown), repr(float(value)), True)


def _rows(frame: pd.DataFrame, links: Mapping[str, str] | None = None) -> list[list[_Cell]]:
    links = links or {}
    return [
        [_cell(value, links.get(name, "")) for name, value in zip(frame.columns, row, strict=True)]
        for row in frame.itertuples(index=False, name=None)
    ]


def _tiles(numbers: Headlines) -> list[_Tile]:
    h = numbers
    return [
        _Tile(
            "Entropy lost by GRPO",
            _percent(h.entropy_lost),
            f"{_number(h.entropy_start)} → {_number(h.entropy_end)} nats per token",
        ),
        _Tile(
            "Validation accuracy",
            _number(100 * h.accuracy_gain, "{:+.1f} points"),
            f"{_percent(h.accuracy_start)} → {_percent(h.accuracy_end)}",
        ),
        _Tile("Steps with positive covariance", _percent(h.positive_covariance), "mean over tokens, Eq. 10"),
        _Tile(
            "Law R = −a exp(H) + b",
            f"a {_number(h.a)}, b {_number(h.b)}",
            f"ceiling {_percent(h.ceiling)}, residual error {_number(100 * h.rmse, '{:.1f}')} points",
        ),
        _Tile(
            "Forecast from the first 15 %",
            _number(100 * h.forecast_rmse, "±{:.1f} points"),
            f"over the rest; {_number(100 * h.forecast_final_error, '{:.1f}')} points off at the end",
        ),
    ]


RUN_COLUMNS = {
    "run": "Run",
    "seed": "Seed",
    "steps": "Steps",
    "gradient_steps": "Gradient steps",
    "seconds": "Wall time (s)",
    "device": "Device",
    "entropy": "Entropy at the end",
    "accuracy": "Accuracy at the end (%)",
    "mlflow_run": "MLflow run",
    "fingerprint": "Fingerprint",
}


def _runs_table(runs: pd.DataFrame) -> pd.DataFrame:
    missing = set(RUN_COLUMNS) - set(runs.columns)
    if missing:
        raise ValueError(f"the report's runs lack {sorted(missing)}; wanted are {list(RUN_COLUMNS)}")
    shown = runs[list(RUN_COLUMNS)].assign(
        accuracy=(100 * runs["accuracy"].astype(float)).round(1), seconds=runs["seconds"].astype(float).round(1)
    )
    return shown.rename(columns=RUN_COLUMNS)


def _comparison_table(comparison: pd.DataFrame) -> pd.DataFrame:
    quantity = [
        f"{name} ({unit})" if unit else name
        for name, unit in zip(comparison["quantity"], comparison["unit"], strict=True)
    ]
    numbers = {
        label: comparison[name].astype(float).map(lambda value: value if pd.isna(value) else float(f"{value:.3g}"))
        for name, label in (("paper", "Paper"), ("ours", "Here"), ("difference", "Difference"))
    }
    return pd.DataFrame({"Quantity": quantity, **numbers})


CSS_PIXELS = 138  # per inch of a figure: letters of all figures get one size, two columns fill the page
SVG_POINTS = 72  # per inch
TWO_COLUMNS = round(CSS_PIXELS * style.TWO_COLUMNS)
PNG = b"\x89PNG"


def _width(image: bytes) -> int:
    """Width in CSS pixels: from the header of a PNG, or the `width="237.6pt"` of an SVG."""
    if image.startswith(PNG):
        return round(CSS_PIXELS / style.PNG_DPI * struct.unpack(">I", image[16:20])[0])
    points = re.search(rb'<svg[^>]*?\swidth="([\d.]+)pt"', image)
    return round(CSS_PIXELS / SVG_POINTS * float(points[1])) if points else TWO_COLUMNS


def _data_uri(image: bytes) -> str:
    kind = "png" if image.startswith(PNG) else "svg+xml"
    return f"data:image/{kind};base64," + base64.b64encode(image).decode()


def heading(name: str) -> str:
    """`fig01` becomes `Fig 1`, `ceiling_test` `Ceiling test`."""
    numbered = re.fullmatch(r"([a-z]+)0*(\d+)", name)
    if numbered:
        return f"{numbered[1].capitalize()} {numbered[2]}"
    return name.replace("_", " ").capitalize()


VERDICT_CLASSES = dict(zip(VERDICTS, ("agrees", "part", "disagrees", "unmeasured"), strict=True))


def summary(claims: tuple[Judged, ...]) -> list[tuple[str, int]]:
    """How many claims have each verdict, in the order of VERDICTS."""
    counts = Counter(judged.verdict for judged in claims)
    return [(verdict, counts[verdict]) for verdict in VERDICTS]


def build(report: Report) -> str:
    """The page. Equal reports give equal text; raises ValueError if `runs` lacks a column."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(data_uri=_data_uri, rows=_rows, width=_width, heading=heading)
    numbers = report.headlines
    there = {entry.name for entry in report.figures} | {entry.name for entry in report.tables}
    return environment.get_template("template.html").render(
        report=report,
        css=markupsafe.Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        script=markupsafe.Markup((FOLDER / "page.js").read_text(encoding="utf-8")),
        summary=summary(report.claims),
        kinds=VERDICT_CLASSES,
        order=list(VERDICTS),
        rules=RULES,
        there=there,
        tiles=_tiles(numbers),
        model=style.model_label(numbers.model),
        verdicts=[(entry.verdict, style.method_look(entry.method).colour) for entry in numbers.methods],
        runs=_runs_table(report.runs),
        comparison=_comparison_table(report.comparison),
        links={"MLflow run": report.run_link} if report.run_link else {},
    )
