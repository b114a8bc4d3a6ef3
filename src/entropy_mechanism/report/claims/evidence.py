"""What claims are judged by: analysis frames of the runs that an item shows, as numbers with intervals.

All that measures raises NotMeasured, with the reason, where there is nothing to measure.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ...figures import style
from ...figures.series import ending

IDENTITY = ["run", "model", "train_set", "method", "seed"]
PAIR = ["model", "train_set", "seed"]
NAN = math.nan


class NotMeasured(Exception):
    """There is no such number in this experiment; the text says why."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval (NaN: none), the runs and seeds behind it, and what it is a mean of.

    `seeds` is the smallest number of seeds of any combination of model, training set and method that enters.
    `exact` numbers, such as those computed in float64 from a formula, need no interval.
    """

    value: float
    low: float = NAN
    high: float = NAN
    runs: int = 0
    seeds: int = 0
    basis: str = ""
    exact: bool = False


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def item_name(name: str) -> str:
    """`fig07` becomes `Fig 7`, `table1` `Table 1`, `ceiling_test` `ceiling test`."""
    for prefix, title in (("fig", "Fig"), ("table", "Table")):
        if name.startswith(prefix) and name.removeprefix(prefix).isdigit():
            return f"{title} {int(name.removeprefix(prefix))}"
    return name.replace("_", " ")


@dataclass(frozen=True)
class Evidence:
    """Analysis frames by kind, and the runs that each figure or table of the experiment shows."""

    frames: Mapping[str, pd.DataFrame]
    shown: Mapping[str, Collection[str]]

    def table(self, kind: str, columns: Sequence[str], items: Sequence[str] = ()) -> pd.DataFrame:
        """The rows of a kind of file, of the runs that any of `items` shows if items are given.

        Raises NotMeasured where the file, a column, the item or its rows are missing.
        """
        frame = self.frames.get(kind)
        if frame is None or frame.empty:
            raise NotMeasured(f"there is no {kind}.parquet with rows")
        if missing := [name for name in columns if name not in frame.columns]:
            raise NotMeasured(f"{kind}.parquet has no column {', '.join(missing)}")
        if not items:
            return frame
        names = " or ".join(map(item_name, items))
        known = [name for name in items if name in self.shown]
        if not known:
            raise NotMeasured(f"the experiment has no {names}")
        frame = frame[frame["run"].isin({run for name in known for run in self.shown[name]})]
        if frame.empty:
            raise NotMeasured(f"no run of {names} is in {kind}.parquet")
        return frame

    @cached_property
    def settings(self) -> pd.DataFrame:
        """The runs with `advantage`, `objective` and `regularisation` as dictionaries, indexed by run."""
        texts = ["advantage", "objective", "regularisation"]
        runs = self.table("runs", [*IDENTITY, *texts]).drop_duplicates("run").set_index("run")
        return runs.assign(**{name: runs[name].map(json.loads) for name in texts})

    @cached_property
    def ends(self) -> pd.DataFrame:
        """Where every run starts and ends: a row per run with `X_first` and `X_end` of its series.

        X is entropy, accuracy and length; the end is the mean over the last tenth of the values.
        """
        names = {"entropy": style.ENTROPY, "accuracy": style.ACCURACY, "length": style.LENGTH}
        curves = self.table("curves", [*IDENTITY, "step", style.ENTROPY, style.ACCURACY])
        rows = []
        for identity, run in curves.sort_values("step").groupby(IDENTITY, sort=False):
            row: dict[str, Any] = dict(zip(IDENTITY, identity, strict=True))
            for name, column in names.items():
                values = run[column].dropna() if column in run else pd.Series(dtype=float)
                row[f"{name}_first"] = float(values.iloc[0]) if len(values) else NAN
                row[f"{name}_end"] = ending(values)
            rows.append(row)
        return pd.DataFrame(rows)

    def ends_of(self, items: Sequence[str], method: str | None = None) -> pd.DataFrame:
        """`ends` of the runs that an item shows, of one method if given."""
        names = {run for name in items if name in self.shown for run in self.shown[name]}
        if not any(name in self.shown for name in items):
            raise NotMeasured(f"the experiment has no {' or '.join(map(item_name, items))}")
        found = self.ends[self.ends["run"].isin(names)]
        if method is not None:
            found = style.of_method(found, method)
        if found.empty:
            what = style.method_label(method) if method else "finished"
            raise NotMeasured(f"no {what} run in {' or '.join(map(item_name, items))}")
        return found

    def pairs(self, items: Sequence[str], method: str) -> pd.DataFrame:
        """Ends of a method's runs beside those of GRPO with the same model, training set and seed (`…_grpo`)."""
        return paired(self.ends_of(items, method), self.ends_of(items, style.BASELINE))


def paired(ours: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """Rows of `ours` with the baseline's columns beside them; NotMeasured without a common model, set and seed."""
    pairs = ours.merge(baseline, on=PAIR, suffixes=("", "_grpo"))
    if pairs.empty:
        raise NotMeasured("no GRPO run has the same model, training set and seed")
    return pairs


def fewest_seeds(rows: pd.DataFrame) -> int:
    """The smallest number of seeds of any model, training set and method among the rows."""
    keys = [name for name in ("model", "train_set", "method") if name in rows]
    return int(rows.groupby(keys, dropna=False)["seed"].nunique().min()) if len(rows) else 0


def mean(
    rows: pd.DataFrame, values: pd.Series | str, noun: str = "run", within: tuple[str, str] | None = None
) -> Estimate:
    """Mean over runs with Student's interval.

    A single run takes the interval that its analysis made, from the columns `within`, if there is one.
    """
    values = (rows[values] if isinstance(values, str) else values).astype(float)
    kept = values.notna()
    rows, values = rows[kept], values[kept]
    if values.empty:
        raise NotMeasured("undefined: too few points, or no variation")
    low = high = NAN
    basis = f"mean of {counted(len(values), noun)}"
    if len(values) > 1:
        low, high = student(values.to_numpy())
    elif within is not None and set(within) <= set(rows.columns):
        low, high = (float(rows[name].iloc[0]) for name in within)
        basis = f"1 {noun}, interval within it"
    else:
        basis = f"1 {noun}"
    return Estimate(float(values.mean()), low, high, len(values), fewest_seeds(rows), basis)


def of_settings(rows: pd.DataFrame, column: str) -> Estimate:
    """Mean over models and training sets of what their seeds are on average, all weighing alike, as Fig 2 has it.

    With a single model and training set it is over the seeds.
    """
    known = rows.dropna(subset=[column])
    settings = known.groupby(["model", "train_set"], as_index=False)[column].mean()
    if len(settings) < 2:
        return mean(known, column)
    found = mean(settings.assign(seed=0), column, "setting")
    return Estimate(found.value, found.low, found.high, len(known), fewest_seeds(known), found.basis)


def student(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean of two or more values, shape (values,), by Student's t."""
    centre, spread = float(values.mean()), float(stats.sem(values))
    if spread == 0:
        return centre, centre
    low, high = stats.t.interval(0.95, len(values) - 1, loc=centre, scale=spread)
    return float(low), float(high)


def ratio(rows: pd.DataFrame, ours: str, theirs: str, noun: str = "pair") -> Estimate:
    """Geometric mean of the ratios of two positive columns, its interval by Student's t of the logarithms."""
    usable = rows[(rows[ours] > 0) & (rows[theirs] > 0)]
    if usable.empty:
        raise NotMeasured("a ratio needs numbers above zero")
    return exponential(mean(usable, np.log(usable[ours] / usable[theirs]), noun))


def exponential(found: Estimate) -> Estimate:
    """The estimate whose logarithm was found."""
    low, value, high = (math.exp(number) for number in (found.low, found.value, found.high))
    return Estimate(value, low, high, found.runs, found.seeds, found.basis)


def share(rows: pd.DataFrame, holds: pd.Series, noun: str = "run", exact: bool = False) -> Estimate:
    """Share of rows for which something holds, with Wilson's interval.

    `exact`: said of these rows and no others, so that there is nothing to be unsure of.
    """
    total = len(holds)
    if total == 0:
        raise NotMeasured(f"no {noun} to count")
    count = int(holds.sum())
    interval = stats.binomtest(count, total).proportion_ci(method="wilson")
    seeds = fewest_seeds(rows) if "seed" in rows else 0
    basis = f"{count} of {counted(total, noun)}"
    if exact:
        return Estimate(count / total, runs=total, seeds=seeds, basis=basis, exact=True)
    return Estimate(count / total, float(interval.low), float(interval.high), total, seeds, basis)
