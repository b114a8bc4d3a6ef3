"""Table 2: benchmark scores of base model and trained policies, with intervals and both averages."""

import pandas as pd

from . import registry, style

INPUTS = registry.TABLES["table2"].inputs
TITLE = "Benchmark scores"
CAPTION = (
    "Score in percent, mean over seeds, with bootstrap interval over problems (the mean interval of "
    "single seeds, so it holds the luck of the problems and not that of training). Bold: best of a model. "
    "Two averages: pooled over all problems or samples, as in the paper's Table 2, and macro, the plain "
    "mean over benchmarks; in the paper the two rank the methods of the 7B model differently."
)
AVERAGES = {"pooled": "average, pooled", "macro": "average, macro"}
KEYS = ["model", "train_set", "method", "protocol", "seeds"]


def table(frames: style.Frames) -> pd.DataFrame:
    """One row per model, train set, method, protocol; per benchmark `X`, `X_low`, `X_high` as shares (0–1).

    Benchmarks come in the order of their first appearance, the averages last. A base model has no train set.
    """
    scores = frames["scores"].copy()
    base = scores["method"] == "base"
    scores["train_set"] = scores["train_set"].where(~base, "").fillna("")
    groups = scores.groupby(["model", "train_set", "method", "protocol", "benchmark"], sort=False)
    means = groups.agg(score=("score", "mean"), low=("low", "mean"), high=("high", "mean")).reset_index()
    seeds = scores.groupby(["model", "train_set", "method", "protocol"])["policy"].nunique()
    benchmarks = [name for name in scores["benchmark"].unique() if name not in AVERAGES]
    benchmarks += [name for name in AVERAGES if name in set(scores["benchmark"])]
    ranks = {model: i for i, model in enumerate(style.model_order(scores["model"], frames["runs"]))}
    methods = {method: i for i, method in enumerate(style.method_order(scores["method"]))}
    protocols = {protocol: i for i, protocol in enumerate(scores["protocol"].unique())}
    rows = []
    for key, here in means.groupby(["model", "train_set", "method", "protocol"]):
        row = dict(zip(KEYS, [*key, int(seeds[key])], strict=True))
        cells = here.set_index("benchmark")
        for name in benchmarks:
            for suffix, column in (("", "score"), ("_low", "low"), ("_high", "high")):
                row[name + suffix] = cells[column].get(name, float("nan"))
        rows.append((ranks[key[0]], protocols[key[3]], key[1], methods[key[2]], row))
    ordered = sorted(rows, key=lambda entry: entry[:4])
    columns = KEYS + [name + suffix for name in benchmarks for suffix in ("", "_low", "_high")]
    return pd.DataFrame([row for *_, row in ordered], columns=columns)


def benchmarks_of(frame: pd.DataFrame) -> list[str]:
    """The benchmark columns of `table`'s frame."""
    return [name for name in frame.columns if f"{name}_low" in frame.columns]


def display(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells as shown: `51.2 [48.0, 54.1]` in percent, the best of a model and protocol in bold."""
    shown = pd.DataFrame({"Model": [style.model_label(model) for model in frame["model"]]}, index=frame.index)
    if frame.loc[frame["method"] != "base", "train_set"].nunique() > 1:
        shown["Trained on"] = frame["train_set"].replace("", "–")
    shown["Method"] = [style.method_label(method) for method in frame["method"]]
    if frame["protocol"].nunique() > 1:
        shown["Protocol"] = frame["protocol"]
    if frame["seeds"].gt(1).any():
        shown["Seeds"] = frame["seeds"].astype(str)
    for name in benchmarks_of(frame):
        groups = frame.groupby(["model", "protocol"])[name]
        best = (frame[name] == groups.transform("max")) & (groups.transform("count") > 1)
        values = zip(frame[name], frame[f"{name}_low"], frame[f"{name}_high"], best, strict=True)
        shown[AVERAGES.get(name, name)] = [_cell(*value) for value in values]
    return shown.reset_index(drop=True)


def _cell(score: float, low: float, high: float, best: bool) -> str:
    if pd.isna(score):
        return "–"
    text = f"**{100 * score:.1f}**" if best else f"{100 * score:.1f}"
    return text if pd.isna(low) or pd.isna(high) else f"{text} [{100 * low:.1f}, {100 * high:.1f}]"


def markdown(frame: pd.DataFrame) -> str:
    """The table in Markdown."""
    return style.markdown(display(frame))
