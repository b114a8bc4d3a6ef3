"""Two experiments side by side: their methods, verdicts, settings and curves."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import ttest_ind

from ..figures import averages, panels, series, style
from .claims import Judged

IDENTITY = ["model", "train_set", "method"]
ABSENT = "–"
LONGEST = 120
"""Characters of a setting that are shown."""


@dataclass(frozen=True)
class Results:
    """What one experiment has to show: its name, analysis frames by kind, judged claims, and resolved settings."""

    name: str
    frames: style.Frames
    claims: tuple[Judged, ...]
    settings: Mapping[str, Any]


def _ends(results: Results) -> pd.DataFrame:
    """Where each run ended: accuracy and score in percent, entropy in nats per token; by model, set and method."""
    curves = series.measured(results.frames, "curves")
    grouped = curves.groupby([*IDENTITY, "seed", "run"], sort=False)
    return pd.DataFrame(
        {
            "accuracy": 100 * grouped.apply(series.last_tenth, style.ACCURACY, include_groups=False),
            "entropy": grouped.apply(series.last_tenth, style.ENTROPY, include_groups=False),
        }
    ).reset_index()


def _with_scores(ours: Results, theirs: Results) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`_ends` of both with `score`: pooled over the benchmarks that every trained policy of both has answered."""
    ends = (_ends(ours), _ends(theirs))
    answered = []
    for side, (results, trained) in enumerate(zip((ours, theirs), ends, strict=True)):
        scores = series.need(results.frames, "scores", "policy", "benchmark", "score")
        answered.append(scores[scores["policy"].isin(trained["run"])].assign(side=side))
    scores = pd.concat(answered, ignore_index=True)
    scores["policy"] = scores["side"].astype(str) + "/" + scores["policy"].astype(str)
    shared = averages.shared(scores)
    pooled = shared[shared["benchmark"] == "pooled"].drop_duplicates("policy").set_index("policy")["score"]
    first, second = (
        trained.assign(score=100 * (f"{side}/" + trained["run"]).map(pooled).astype(float))
        for side, trained in enumerate(ends)
    )
    return first, second


def _difference(ours: pd.Series, theirs: pd.Series) -> str:
    """Mean of `ours` less that of `theirs`; with Welch's 95 % interval where both have two seeds or more."""
    ours, theirs = ours.dropna(), theirs.dropna()
    if ours.empty or theirs.empty:
        return ABSENT
    shown = f"{ours.mean() - theirs.mean():+.1f}"
    if min(len(ours), len(theirs)) > 1 and ours.var() + theirs.var() > 0:
        interval = ttest_ind(ours, theirs, equal_var=False).confidence_interval()
        shown += f" ± {(interval.high - interval.low) / 2:.1f}"
    return shown.replace("-", "−")


def _ratio(ours: pd.Series, theirs: pd.Series) -> float:
    ours, theirs = ours.dropna(), theirs.dropna()
    return float(ours.mean() / theirs.mean()) if len(ours) and len(theirs) and theirs.mean() > 0 else math.nan


def methods(ours: Results, theirs: Results) -> pd.DataFrame:
    """One row per model, training set and method of either experiment: means over seeds at the end of training.

    Differences are ours less theirs, in points; seeds of one experiment are no pairs with those of the other. A
    row whose runs end in the same numbers, seed by seed, shows the same trainings: experiments share them.
    Benchmarks are left out where neither answered any.
    """
    ends = _with_scores(ours, theirs)
    names = list(dict.fromkeys(key for side in ends for key in side[IDENTITY].itertuples(index=False, name=None)))
    rows = []
    for model, train_set, method in names:
        mine, other = (
            side[(side["model"] == model) & (side["train_set"] == train_set) & (side["method"] == method)]
            .sort_values("seed")
            .reset_index(drop=True)
            for side in ends
        )
        measured = ["seed", "accuracy", "entropy"]
        same = len(mine) > 0 and mine[measured].equals(other[measured])
        row: dict[str, Any] = {"Model": style.model_label(model), "Trained on": train_set, "Method": method}
        row["Seeds"] = f"{len(mine)}, {len(other)}" + (": the same runs" if same else "")
        for name, label in (("accuracy", "Validation (%)"), ("score", "Benchmarks (%)")):
            row |= _both(label, mine[name], other[name], theirs.name)
            row[f"{label}: difference"] = _difference(mine[name], other[name])
        row |= _both("Entropy", mine["entropy"], other["entropy"], theirs.name)
        row["Entropy: ratio"] = _ratio(mine["entropy"], other["entropy"])
        rows.append(row)
    table = pd.DataFrame(rows)
    if not any(side["score"].notna().any() for side in ends):
        table = table.drop(columns=[name for name in table if name.startswith("Benchmarks")])
    return table


def _both(label: str, mine: pd.Series, other: pd.Series, name: str) -> dict[str, float]:
    return {f"{label}: here": float(mine.mean()), f"{label}: {name}": float(other.mean())}


def verdicts(ours: Results, theirs: Results) -> pd.DataFrame:
    """One row per claim that either has measured, with both verdicts; bold where both measured it and differ."""
    rows = []
    for mine, other in zip(ours.claims, theirs.claims, strict=True):
        if not (mine.measured or other.measured):
            continue
        mark = "**" if mine.measured and other.measured and mine.verdict != other.verdict else ""
        shown = [
            f"{mark}{judged.verdict}{mark}" + (f", {judged.certainty}" if judged.certainty else "")
            for judged in (mine, other)
        ]
        rows.append({"Claim": mine.claim.statement, "Here": shown[0], theirs.name: shown[1]})
    return pd.DataFrame(rows, columns=["Claim", "Here", theirs.name])


def settings(ours: Results, theirs: Results) -> pd.DataFrame:
    """One row per setting in which the two differ, named as in an experiment file, defaults filled in.

    Title, figures and tables are left out: they say what is shown.
    """
    rows = [
        (key, *map(_shown, values))
        for key, values in _differences(ours.settings, theirs.settings)
        if key.partition(".")[0] not in ("title", "figures", "tables")
    ]
    return pd.DataFrame(rows, columns=["Setting", "Here", theirs.name])


_MISSING = object()


def _differences(ours: Any, theirs: Any, key: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for name in dict.fromkeys((*ours, *theirs)):
            below = f"{key}.{name}" if key else str(name)
            yield from _differences(ours.get(name, _MISSING), theirs.get(name, _MISSING), below)
    elif ours != theirs:
        yield key, (ours, theirs)


def _shown(value: Any) -> str:
    if value is _MISSING:
        return ABSENT
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _series_shown(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[str]:
    """Series (model, with training set where needed) that both have, or else all, in order of appearance."""
    mine, other = (list(dict.fromkeys(frame["setting"])) for frame in (ours, theirs))
    return [name for name in mine if name in other] or list(dict.fromkeys((*mine, *other)))


@style.styled
def draw(ours: Results, theirs: Results) -> Figure:
    """Entropy and accuracy of both over gradient steps: ours in full lines, theirs dashed, a colour per method.

    Only models, training sets and methods that both have are drawn, or all where they have none in common.
    """
    curves = [series.measured(side.frames, "curves", style.ENTROPY) for side in (ours, theirs)]
    curves = [frame.assign(setting=series.by_setting(frame)) for frame in curves]
    shown = _series_shown(*curves)
    curves = [frame[frame["setting"].isin(shown)] for frame in curves]
    common = set(curves[0]["method"]) & set(curves[1]["method"])
    if common:
        curves = [frame[frame["method"].isin(common)] for frame in curves]
    if not shown or all(frame.empty for frame in curves):
        return panels.empty_figure("No run with a measured entropy.")
    looks = style.method_looks(pd.concat(curves)["method"])
    columns = min(len(shown), 3)
    blocks = [shown[start : start + columns] for start in range(0, len(shown), columns)]
    figure = Figure(figsize=(style.ONE_COLUMN * min(columns, 2), 0.8 + 2.6 * len(blocks)))
    grid = figure.subplots(2 * len(blocks), columns, squeeze=False)
    for block, names in enumerate(blocks):
        for column in range(columns):
            entropy, accuracy = grid[2 * block : 2 * block + 2, column]
            if column >= len(names):
                entropy.axis("off")
                accuracy.axis("off")
                continue
            entropy.set_title(names[column])
            for axes, quantity, unit in ((entropy, style.ENTROPY, 1), (accuracy, style.ACCURACY, 100)):
                drawn = []
                for frame, dashes in zip(curves, ("-", "--"), strict=True):
                    here = frame[frame["setting"] == names[column]]
                    for method in style.method_order(here["method"]):
                        line = series.lines(
                            here[here["method"] == method], quantity, unit, panel="", series=method, y_name=""
                        )
                        if len(line):
                            axes.plot(line["x"], line["y"], dashes, color=looks[method].colour, linewidth=1.0)
                            drawn.append(line)
                if quantity == style.ENTROPY and drawn:
                    panels.log_entropy(axes, style.stack(drawn))
            accuracy.set_xlabel(style.GRADIENT_STEPS)
        grid[2 * block, 0].set_ylabel("Entropy\n(nats per token)")
        grid[2 * block + 1, 0].set_ylabel("Accuracy (%)")
    handles = [Line2D([], [], color=look.colour, label=look.label) for look in looks.values()]
    handles.append(Line2D([], [], color="0.6", label=ours.name))
    handles.append(Line2D([], [], color="0.6", label=theirs.name, linestyle="--"))
    figure.legend(handles=handles, loc="outside upper center", ncols=2 if columns == 1 else 4)
    return figure


@dataclass(frozen=True)
class Beside:
    """What the page shows of a comparison; `methods`, `verdicts` and `settings` are the frames made here."""

    name: str
    methods: pd.DataFrame
    verdicts: pd.DataFrame
    settings: pd.DataFrame
    image: bytes

    @property
    def other_verdicts(self) -> int:
        """How many claims that both have measured they judge differently."""
        return int(self.verdicts["Here"].str.startswith("**").sum()) if len(self.verdicts) else 0


def beside(ours: Results, theirs: Results) -> Beside:
    """Compare two experiments; `figures.inputs.finished` refuses one that is compared with itself."""
    return Beside(
        name=theirs.name,
        methods=methods(ours, theirs),
        verdicts=verdicts(ours, theirs),
        settings=settings(ours, theirs),
        image=style.render(draw(ours, theirs), "svg"),
    )
