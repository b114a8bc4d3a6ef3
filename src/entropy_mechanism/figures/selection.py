"""Table of the selection study: what each way to choose tokens does to entropy and accuracy."""

import math
from typing import Any

import pandas as pd

from . import averages, series, style, sweep

TITLE = "How tokens are selected"
CAPTION = (
    "Clip-Cov and KL-Cov with different scopes, log-probabilities, shares, bounds and penalties, and GRPO from "
    "the same model and training set. Share: of tokens asked for, and in brackets the share that was selected, "
    "mean over steps. Entropy (nats per token) and validation accuracy (%): means over the last tenth of "
    "training. Score (%): pooled over the benchmarks that all of them answered. Means over seeds; behind the "
    "slash the difference to GRPO with the same seed, mean over seeds and in brackets, where there are several, "
    "the range of the seeds. One seed says little: the spread of training is not in it."
)
OBJECTIVES = ("clip-cov", "kl-cov")
KEYS = ["model", "train_set", "method"]
SETTINGS = (
    *("scope", "policy", "form", "fraction", "covariance_low", "covariance_high", "draw", "penalty"),
    "coefficient",
)
MEASURES = ("entropy", "accuracy", "score")
COLUMNS = [*KEYS, "objective", *SETTINGS, "seeds", "realised", "realised_low", "realised_high"]
COLUMNS += [f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")]
COLUMNS += [f"{name}_difference{end}" for name in MEASURES for end in ("", "_low", "_high", "_seeds")]


def table(frames: style.Frames) -> pd.DataFrame:
    """One row per model, training set and method: settings, means over seeds with the seeds' range, differences.

    `fraction` and `realised` are shares (0 to 1), `accuracy` and `score` too; `entropy` is in nats. `…_difference`
    is to the GRPO runs with the same model, training set, seed and number of steps, over the seeds that both have.
    """
    runs = _runs(frames)
    rows = []
    for (model, train_set), here in runs.groupby(["model", "train_set"], sort=False):
        baseline = style.of_method(here).set_index(["seed", "steps"])
        for method in style.method_order(here["method"]):
            mine = here[here["method"] == method].set_index(["seed", "steps"])
            is_baseline = style.method_key(method) == style.BASELINE
            if is_baseline and len(here) == len(mine):
                continue  # nothing to set it beside
            row = dict(zip(KEYS, (model, train_set, method), strict=True))
            row |= (
                _settings(mine["objective"].iloc[0]) | {"seeds": len(mine)} | _range("realised", mine["realised"])
            )
            for name in MEASURES:
                row |= _range(name, mine[name])
                difference = (mine[name] - baseline[name]).dropna() if not is_baseline else mine[name].iloc[:0]
                row |= _range(f"{name}_difference", difference) | {f"{name}_difference_seeds": len(difference)}
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _runs(frames: style.Frames) -> pd.DataFrame:
    """GRPO, Clip-Cov and KL-Cov runs, larger models last, with what they came to, one value per run."""
    runs = sweep.settings_of(series.need(frames, "runs", "run", "seed", "steps"))
    names = runs["objective"].map(lambda objective: objective.get("name"))
    runs = runs[names.isin(OBJECTIVES) | (runs["method"].map(style.method_key) == style.BASELINE)]
    order = style.model_order(runs["model"], series.need(frames, "runs", "model", "non_embedding_parameters"))
    runs = runs.assign(order=runs["model"].map(order.index)).sort_values(["order", "train_set", "seed"])
    columns = {"entropy": style.ENTROPY, "accuracy": style.ACCURACY}
    curves = series.measured(frames, "curves")
    curves = series.need({"curves": curves}, "curves", "selection/fraction", *columns.values())
    by_run = dict(iter(curves.groupby("run")))
    nothing = curves.iloc[:0]
    scores = series.need(frames, "scores", "policy", "benchmark", "score")
    scores = averages.shared(scores[scores["policy"].isin(runs["run"])])
    pooled = scores[scores["benchmark"] == "pooled"].drop_duplicates("policy").set_index("policy")["score"]
    found: dict[str, list[float]] = {name: [] for name in ("realised", *MEASURES)}
    for run in runs["run"]:
        curve = by_run.get(run, nothing)
        found["realised"].append(curve["selection/fraction"].astype(float).mean())
        for name, column in columns.items():
            found[name].append(series.last_tenth(curve, column))
        found["score"].append(float(pooled.get(run, math.nan)))
    return runs.assign(**found)


def _settings(objective: dict[str, Any]) -> dict[str, Any]:
    """The settings of a selection; empty for GRPO, which selects nothing."""
    if objective.get("name") not in OBJECTIVES:
        return {"objective": objective.get("name")}
    share = objective["fraction"] / (100 if objective.get("unit") == "percent" else 1)
    return (
        {"objective": objective["name"]} | {name: objective.get(name) for name in SETTINGS} | {"fraction": share}
    )


def _range(name: str, values: pd.Series) -> dict[str, float]:
    """Mean and, of several seeds, the lowest and highest."""
    ends = (values.min(), values.max()) if values.notna().sum() > 1 else (math.nan, math.nan)
    return {name: values.mean(), f"{name}_low": ends[0], f"{name}_high": ends[1]}


def display(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells as shown."""
    shown = pd.DataFrame({"Model": [style.model_label(model) for model in frame["model"]]}, index=frame.index)
    if frame["train_set"].nunique() > 1:
        shown["Trained on"] = frame["train_set"]
    shown["Method"] = [style.method_label(method) for method in frame["method"]]
    shown["Scope"] = frame["scope"].fillna("–")
    shown["Log-prob."] = frame["policy"].fillna("–")
    shown["Share"] = [_share(row) for row in frame.itertuples()]
    shown["Chosen from"] = [_chosen(row) for row in frame.itertuples()]
    shown["Penalty"] = [_penalty(row) for row in frame.itertuples()]
    shown["Seeds"] = frame["seeds"].astype(str)
    for name, title, unit, digits in (
        ("entropy", "Entropy / to GRPO", 1, 3),
        ("accuracy", "Accuracy / to GRPO", 100, 1),
        ("score", "Score / to GRPO", 100, 1),
    ):
        if frame[name].notna().any():
            shown[title] = [_result(row, unit, digits, name) for row in frame.to_dict("records")]
    return shown.reset_index(drop=True)


def _share(row: Any) -> str:
    if pd.isna(row.fraction):
        return "–"
    return f"{row.fraction:.2g}" + ("" if pd.isna(row.realised) else f" ({row.realised:.2g})")


def _chosen(row: Any) -> str:
    if row.objective == "kl-cov":
        base = "highest"
    elif row.objective == "clip-cov":
        base = f"{'highest' if row.draw == 'top' else 'any'} in {row.covariance_low:g} to {row.covariance_high:g}"
    else:
        return "–"
    return f"{base}, Cov(log π, πA)" if row.form == "weighted" else base


def _penalty(row: Any) -> str:
    return "–" if pd.isna(row.penalty) else f"{row.coefficient:g} × {row.penalty}"


def _result(row: dict[str, Any], unit: float, digits: int, name: str) -> str:
    if pd.isna(row[name]):
        return "–"
    text = f"{unit * row[name]:.{digits}f}"
    difference = row[f"{name}_difference"]
    if pd.isna(difference):
        return text
    text += f" / {unit * difference:+.{digits}f}"
    low, high = row[f"{name}_difference_low"], row[f"{name}_difference_high"]
    return text if pd.isna(low) else f"{text} [{unit * low:+.{digits}f}, {unit * high:+.{digits}f}]"
