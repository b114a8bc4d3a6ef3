"""The numbers that the report begins with, and their comparison with the paper. All come from analysis frames."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..figures import fig02, fig05, fig11, published, series, style, table1

NAN = float("nan")


@dataclass(frozen=True)
class MethodEntropy:
    """What a method left of the entropy at the end of training, mean over seeds, nats per token.

    `ratio` and `updates_ratio` (gradient steps) are to GRPO with the same model, train set and seeds; NaN and 1
    without GRPO.
    """

    method: str
    entropy: float
    ratio: float
    seeds: int
    seeds_with_more: int
    seeds_compared: int
    updates_ratio: float = 1.0

    @property
    def keeps_more(self) -> bool:
        """Whether more entropy is left than with GRPO, on average over seeds."""
        return self.ratio > 1

    @property
    def is_baseline(self) -> bool:
        """Whether this is what the others are compared with."""
        return bool(style.method_look(self.method) == style.method_look(style.BASELINE))

    @property
    def verdict(self) -> str:
        """One plain sentence."""
        name, baseline = style.method_label(self.method), style.method_label(style.BASELINE)
        if self.is_baseline:
            return f"{name} ends with {self.entropy:#.3g} nats per token."
        if math.isnan(self.ratio):
            return f"{name} ends with {self.entropy:#.3g} nats per token; there is no {baseline} run to compare."
        if f"{self.ratio:.2g}" == "1" and self.keeps_more:
            sentence = f"{name} keeps hardly more entropy than {baseline}"
        elif self.keeps_more:
            sentence = f"{name} keeps {self.ratio:.2g} times {baseline}'s entropy"
        else:
            sentence = f"{name} does NOT keep more entropy than {baseline}, but {self.ratio:.2g} times as much"
        sentence += f" ({self.entropy:#.3g} nats per token)"
        if abs(self.updates_ratio - 1) > 0.1:  # steps without a mixed group make fewer; that is not worth a word
            sentence += f"; it made {self.updates_ratio:.2g} times as many gradient steps"
        if self.seeds_compared > 1:
            sentence += f"; more in {self.seeds_with_more} of {self.seeds_compared} seeds"
        return sentence + "."


@dataclass(frozen=True)
class Headlines:
    """GRPO of the largest model on the training set of most of its runs, means over seeds; NaN: not measured.

    Entropies in nats per token, accuracies, shares and the law's errors as fractions, `accuracy_gain` too.
    `positive_covariance` is the share of rollout steps whose mean token covariance is above zero.
    """

    model: str
    train_set: str
    seeds: int
    entropy_start: float
    entropy_end: float
    entropy_lost: float
    accuracy_start: float
    accuracy_end: float
    accuracy_gain: float
    positive_covariance: float
    a: float
    b: float
    ceiling: float
    rmse: float
    forecast_rmse: float
    forecast_final_error: float
    methods: tuple[MethodEntropy, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """GRPO's numbers and the others' entropies in plain sentences; nothing of what was not measured."""
        if math.isnan(self.entropy_end + self.accuracy_end):
            return tuple(entry.verdict for entry in self.methods)
        told = [
            f"GRPO on {self.model}: entropy {self.entropy_start:#.3g} -> {self.entropy_end:#.3g} nats per token, "
            f"validation accuracy {100 * self.accuracy_start:.1f} % -> {100 * self.accuracy_end:.1f} %."
        ]
        if not math.isnan(self.a + self.b + self.rmse):
            sign = "-" if self.b < 0 else "+"
            told.append(
                f"The law R = {-self.a:.3g} exp(H) {sign} {abs(self.b):.3g} fits with an error of "
                f"{100 * self.rmse:.1f} points."
            )
        return (*told, *(entry.verdict for entry in self.methods if not entry.is_baseline))


def _ends(run: pd.DataFrame, column: str) -> tuple[float, float]:
    """First measured value of one run and its mean over the last tenth, not known after a single measurement."""
    values = run.sort_values("step")[column].dropna()
    first = float(values.iloc[0]) if len(values) else NAN
    return first, series.ending(values) if len(values) > 1 else NAN


def _mean(values: pd.Series) -> float:
    return float(values.mean()) if values.notna().any() else NAN


def _commonest_train_set(curves: pd.DataFrame, baseline: pd.DataFrame) -> str:
    """Of the training sets that `baseline` has, or else `curves`, the one with most runs; the first by name."""
    runs = curves.drop_duplicates("run")["train_set"]
    counts = runs[runs.isin(baseline["train_set"])] if len(baseline) else runs
    return str(counts.value_counts().sort_index().idxmax()) if len(counts) else ""


def _method_entropies(curves: pd.DataFrame) -> tuple[MethodEntropy, ...]:
    if curves.empty:
        return ()
    keys = ["method", "train_set", "seed"]
    runs = curves.groupby(keys)
    ends, updates = (
        runs.apply(series.last_tenth, style.ENTROPY, include_groups=False),
        runs["gradient_steps"].max(),
    )
    baseline = [method for method in curves["method"].unique() if style.method_label(method) == "GRPO"]
    reference = ends.xs(baseline[0], level="method") if baseline else ends.iloc[:0].droplevel("method")
    found = []
    for method in style.method_order(curves["method"]):
        mine = ends.xs(method, level="method")
        pairs = pd.concat([mine, reference], axis=1, join="inner", keys=["mine", "grpo"])
        made = [updates.xs(name, level="method").loc[pairs.index].mean() for name in (method, *baseline[:1])]
        found.append(
            MethodEntropy(
                method=method,
                entropy=_mean(mine),
                ratio=_mean(pairs["mine"]) / _mean(pairs["grpo"]) if len(pairs) else NAN,
                seeds=len(mine),
                seeds_with_more=int((pairs["mine"] > pairs["grpo"]).sum()),
                seeds_compared=len(pairs),
                updates_ratio=float(made[0] / made[1]) if len(pairs) else 1.0,
            )
        )
    return tuple(found)


def headlines(frames: style.Frames) -> Headlines:
    """The headline numbers of the analysis frames."""
    curves = frames["curves"]
    baseline = style.largest_model(style.of_method(curves), frames["runs"])
    if baseline.empty:  # without GRPO there is still something to say about the other methods
        here = style.largest_model(curves, frames["runs"])
    else:
        here = curves[curves["model"] == baseline["model"].iloc[0]]
    train_set = _commonest_train_set(here, baseline)
    here, baseline = (frame[frame["train_set"] == train_set] for frame in (here, baseline))
    runs = [run for _, run in baseline.groupby("run")]
    entropy = np.array([_ends(run, style.ENTROPY) for run in runs] or [(NAN, NAN)])
    accuracy = np.array([_ends(run, style.ACCURACY) for run in runs] or [(NAN, NAN)])
    covariance = baseline["covariance/mean"].dropna() if "covariance/mean" in baseline else pd.Series(dtype=float)
    law = frames["law"][frames["law"]["run"].isin(baseline["run"])]
    forecasts = frames["forecasts"]
    forecasts = forecasts[forecasts["run"].isin(baseline["run"])]
    forecasts = forecasts[(forecasts["predictor"] == "exponential") & (forecasts["direction"] == "forward")]
    forecasts = forecasts[np.isclose(forecasts["fraction"].astype(float), fig05.FRACTION, rtol=0, atol=1e-6)]
    (h_start, h_end), (r_start, r_end) = entropy.mean(axis=0), accuracy.mean(axis=0)
    return Headlines(
        model=str(here["model"].iloc[0]) if len(here) else "",
        train_set=train_set,
        seeds=len(runs),
        entropy_start=float(h_start),
        entropy_end=float(h_end),
        entropy_lost=float(1 - h_end / h_start),
        accuracy_start=float(r_start),
        accuracy_end=float(r_end),
        accuracy_gain=float(r_end - r_start),
        positive_covariance=_mean(covariance > 0) if len(covariance) else NAN,
        **{name: _mean(law[name]) for name in ("a", "b", "ceiling", "rmse")},
        forecast_rmse=_mean(forecasts["rmse"]),
        forecast_final_error=_mean(forecasts["final_error"].abs()),
        methods=_method_entropies(here),
    )


COMPARISON = ["quantity", "unit", "paper", "ours", "difference"]


def comparison(frames: style.Frames) -> pd.DataFrame:
    """Quantities that both have: quantity, unit, paper, ours, difference (ours minus paper; NaN: not measured).

    Shares are in percent, errors in accuracy points. The paper's side is printed in it, or read off its figures.
    """
    table = pd.DataFrame([*_consumption(frames), *_entropies(frames), *_law(frames), *_covariances(frames)])
    table.columns = COMPARISON[:4]
    table["difference"] = table["ours"] - table["paper"]
    return table


Row = tuple[str, str, float, float]


def _consumption(frames: style.Frames) -> Iterator[Row]:
    drawn = fig02.data(frames)
    for (fraction, name), paper in fig02.PAPER.items():
        bars = style.by(drawn, series=name, source="ours", mark="bar")
        bars = bars[np.isclose(bars["x"].astype(float), fraction)]
        ours = float(bars["y"].iloc[0]) if len(bars) else NAN
        yield f"{name.capitalize()} after {fig02.FRACTIONS[fraction]}", "%", paper, ours


def _entropies(frames: style.Frames) -> Iterator[Row]:
    found = headlines(frames)
    model = found.model if found.model in published.FIG11_MODELS else fig11.PAPER_MODEL
    paper, whose = published.load(f"fig11_{model}"), style.model_label(model)
    paper = paper[paper["quantity"] == "entropy"].rename(columns={"value": style.ENTROPY})
    ends = {name.lower(): series.last_tenth(curve, style.ENTROPY) for name, curve in paper.groupby("series")}
    ours = {style.method_key(entry.method): entry.ratio for entry in found.methods}
    for method in fig11.METHODS[1:]:
        name = f"Entropy of {style.method_label(method)} over GRPO's, last tenth of training; paper: {whose}"
        yield name, "times", ends[method] / ends[style.BASELINE], ours.get(method, NAN)


def _law(frames: style.Frames) -> Iterator[Row]:
    found = headlines(frames)
    # Printed in Section 2 of the paper: means over the Qwen2.5 models on math.
    yield "Forecast from the first 15 %: error over the rest", "points", 0.9, 100 * found.forecast_rmse
    yield "Forecast from the first 15 %: error at the end", "points", 0.5, 100 * found.forecast_final_error


def _covariances(frames: style.Frames) -> Iterator[Row]:
    left = published.load("fig08_left").pivot(index="step", columns="quantity", values="value").dropna()
    summary = frames["dynamics_summary"].merge(frames["runs"][["run", "updates_per_rollout"]], on="run")
    on_policy = summary[summary["updates_per_rollout"] == 1]
    yield (
        "Steps with positive response-level covariance, on-policy (smoothed curve in the paper)",
        "%",
        100 * float((left["covariance"] > 0).mean()),
        100 * _mean(on_policy["positive_share"]),
    )
    yield (
        "Correlation of covariance and entropy loss, on-policy (Pearson; smoothed in the paper)",
        "",
        float(left.corr().iloc[0, 1]),
        _mean(on_policy["pearson"]),
    )
    top = table1.table(frames)
    models = [name for name in top.columns if name not in ("top_fraction", table1.PAPER)]
    for _, row in top.dropna(subset=[table1.PAPER]).iterrows():
        share = "all tokens" if row["top_fraction"] == 1 else f"top {100 * row['top_fraction']:g} % of tokens"
        ours = float(row[models[-1]]) if models else NAN
        yield f"Mean covariance at the first step, {share}", "", float(row[table1.PAPER]), ours
