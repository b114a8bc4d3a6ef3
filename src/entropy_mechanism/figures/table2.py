"""Table 2: benchmark scores of base model and trained policies, with intervals and both averages."""

import pandas as pd

from . import averages, published, series, style

TITLE = "Benchmark scores"
CAPTION = (
    "Score in percent, mean over seeds, with bootstrap interval over problems (the mean interval of single seeds, "
    "so it holds the luck of the problems and not that of training). Bold: best of a model. Two averages: pooled "
    "over all problems or samples, as in the paper's Table 2, and macro, the plain mean over benchmarks; in the "
    "paper the two rank the methods of the 7B model differently. Averages are over the benchmarks that all "
    "policies answered, without interval for those that answered more. Clean: without the problems that stand in "
    "the training data; shown where there are any, always in the table's CSV file. Below: the paper's Table 2, in "
    "benchmarks where they are ours too, and its averages over its own seven."
)
AVERAGES = {"pooled": "average, pooled", "macro": "average, macro"}
KEYS = ["source", "model", "train_set", "method", "seeds"]
COLUMNS = (
    *("policy", "model", "train_set", "method", "seed", "benchmark", "protocol", "problems", "samples"),
    *("score", "low", "high", "clean_problems", "clean_samples", "clean_score", "clean_low", "clean_high"),
)
SUFFIXES = {
    "": "score",
    "_low": "low",
    "_high": "high",
    "_clean": "clean_score",
    "_clean_low": "clean_low",
    "_clean_high": "clean_high",
    "_contained": "contained",
}
"""What the table says about every score, and the column of the scores it comes from."""


def table(frames: style.Frames) -> pd.DataFrame:
    """One row per model, train set and method; per score `X`, `X_low`, `X_high` as shares (0–1).

    `X_clean`, `X_clean_low` and `X_clean_high` are the same without the `X_contained` problems of the benchmark
    that stand in the training set, or for a base model in that of any run from it. Rows of source `ours` are
    followed by those of the `paper`, which have X alone, where a column is theirs too.
    A score's name is its benchmark and protocol. First come those that enter the averages (the first protocol
    of each benchmark), then the averages, then the other protocols. A base model has no train set.
    """
    scores = series.need(frames, "scores", *COLUMNS)
    if scores.empty:
        return pd.DataFrame(columns=KEYS)
    scores = averages.shared(scores)
    base = scores["method"] == "base"
    scores["train_set"] = scores["train_set"].where(~base, "").fillna("")
    names = _names(scores)
    scores["contained"] = scores["problems"] - scores["clean_problems"].fillna(0)
    scores["name"] = [names[key] for key in zip(scores["benchmark"], scores["protocol"], strict=True)]
    policies = scores.groupby(["model", "train_set", "method"])
    means = scores.groupby(["model", "train_set", "method", "name"]).agg(
        **{suffix: (column, "mean") for suffix, column in SUFFIXES.items()}
    )
    ranks = {
        model: i
        for i, model in enumerate(style.model_order(scores["model"], series.need(frames, "runs", "model")))
    }
    methods = {method: i for i, method in enumerate(style.method_order(scores["method"]))}
    ordered = sorted(policies.groups, key=lambda key: (ranks[key[0]], key[1], methods[key[2]]))
    rows = []
    for key in ordered:
        row = dict(zip(KEYS, ["ours", *key, policies["policy"].nunique()[key]], strict=True))
        for name in names.values():
            for suffix in SUFFIXES:
                row[name + suffix] = means[suffix].get((*key, name), float("nan"))
        rows.append(row)
    columns = KEYS + [name + suffix for name in names.values() for suffix in SUFFIXES]
    return pd.DataFrame(rows + _published(names), columns=columns)


def _published(names: dict[tuple[str, str], str]) -> list[dict[str, object]]:
    """Rows of the paper's table, with the benchmarks and protocols that are ours too, and its averages."""
    rows = []
    for paper in published.load("table2").to_dict("records"):
        benchmarks = {name: value for name, value in paper.items() if name not in ("model", "method", "average")}
        values = {("pooled", ""): paper["average"], ("macro", ""): sum(benchmarks.values()) / len(benchmarks)}
        for name, value in benchmarks.items():
            protocol = "avg@32" if name.startswith(("AIME", "AMC")) else "greedy"
            values[_plain(name), protocol] = value
        row: dict[str, object] = {
            "source": "paper",
            "model": paper["model"],
            "train_set": "",
            "method": paper["method"].lower(),
            "seeds": 1,
        }
        for (benchmark, protocol), name in names.items():
            key = (benchmark, "") if benchmark in AVERAGES else (_plain(benchmark), protocol)
            row[name] = values[key] / 100 if key in values else float("nan")
        if any(pd.notna(row[name]) for name in names.values()):
            rows.append(row)
    return rows


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _names(scores: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Column of each (benchmark, protocol), in the order of the columns."""
    pairs = list(dict.fromkeys(zip(scores["benchmark"], scores["protocol"], strict=True)))
    means = [pair for pair in pairs if pair[0] in AVERAGES]
    first = {pair[0]: pair for pair in reversed(pairs)}
    entering = [pair for pair in first.values() if pair not in means][::-1]
    others = [pair for pair in pairs if pair not in means and pair not in entering]
    ordered = entering + sorted(means, key=lambda pair: list(AVERAGES).index(pair[0])) + others
    return {pair: pair[0] if pair in means else " ".join(pair) for pair in ordered}


def benchmarks_of(frame: pd.DataFrame) -> list[str]:
    """The scores among the columns of `table`'s frame."""
    return [name for name in frame.columns if f"{name}_clean" in frame.columns]


def display(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells as shown: `51.2 [48.0, 54.1]` in percent, the best of a model in bold."""
    ours = frame["source"] == "ours"
    labels = [style.model_label(model) for model in frame["model"]]
    labels = [label if own else f"Paper, {label}" for label, own in zip(labels, ours, strict=True)]
    shown = pd.DataFrame({"Model": labels}, index=frame.index)
    if frame.loc[ours & (frame["method"] != "base"), "train_set"].nunique() > 1:
        shown["Trained on"] = frame["train_set"].fillna("").replace("", "–")
    shown["Method"] = [style.method_label(method) for method in frame["method"]]
    if frame["seeds"].gt(1).any():
        shown["Seeds"] = frame["seeds"].astype(str)
    for name in benchmarks_of(frame):
        title = AVERAGES.get(name, name)
        shown[title] = _cells(frame, name)
        if frame[f"{name}_contained"].gt(0).any():
            shown[f"{title}, clean"] = _cells(frame, f"{name}_clean")
    return shown.reset_index(drop=True)


def _cells(frame: pd.DataFrame, name: str) -> list[str]:
    groups = frame.groupby(["source", "model"])[name]
    best = (frame[name] == groups.transform("max")) & (groups.transform("count") > 1)
    values = zip(frame[name], frame[f"{name}_low"], frame[f"{name}_high"], best, strict=True)
    return [_cell(*value) for value in values]


def _cell(score: float, low: float, high: float, best: bool) -> str:
    if pd.isna(score):
        return "–"
    text = f"**{100 * score:.1f}**" if best else f"{100 * score:.1f}"
    return text if pd.isna(low) or pd.isna(high) else f"{text} [{100 * low:.1f}, {100 * high:.1f}]"
