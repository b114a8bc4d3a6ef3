"""Covariance against the step-wise change of entropy (Fig. 8 of arXiv 2505.22617).

Theorem 1 says that one policy-gradient step changes the entropy by about -eta Cov(log pi, pi A): the
covariance at step t and the entropy lost from t to t + 1 should move together, with slope eta.
"""

from collections.abc import Iterable
from fractions import Fraction

import pandas as pd

from entropy_mechanism.analysis.columns import ENTROPY_BEFORE_FILTER
from entropy_mechanism.analysis.law import require_columns, rows_by_run

COVARIANCE = "covariance/response"
GROUP_PREFIX = "covariance/response_accuracy_"
SERIES_COVARIANCE, SERIES_ENTROPY = "covariance", "minus_entropy_difference"
LEVELS = ("token", "sequence", "action")
"""At which covariance_levels.parquet has the covariance."""
RECORDS, LOGGED = "records", "logged"
"""Sources of a value: the records of the step's tokens, or what the training logged."""

DYNAMICS_COLUMNS = [
    *("run", "model", "method", "seed", "series", "step", "gradient_steps", "source"),
    *("value", "smooth", "window", "low", "high"),
]


def dynamics(
    curves: pd.DataFrame,
    window: int = 9,
    entropy_column: str = ENTROPY_BEFORE_FILTER,
    recorded: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return the frame of dynamics.parquet: the series of Fig. 8, raw and smoothed, a row per measured step.

    Series: `covariance` (Eq. 8-9), `minus_entropy_difference` (H_t - H_t+1 in nats, at step t) and, for each
    column `covariance/response_accuracy_{k/G}`, `group_accuracy={k/G}`. `smooth` is the centred moving mean
    over `window` rollout steps (an odd number, which every row repeats), `low` and `high` are that mean -+ the
    population standard deviation in the same window: the spread of single steps, not the uncertainty of the mean.
    Windows are cut at the ends of training and skip steps without a value, which also get no row; a step whose
    successor was not logged has no difference.

    Covariances are those of `recorded` (the frame of token_covariances.parquet) at the steps it has, and those of
    `curves` at all others; `source` says which, `records` or `logged`.

    Raises ValueError for an even window, missing columns or a step that a run has twice.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window is {window}, allowed are odd numbers from 1: a centred mean needs a middle")
    identity = ["run", "model", "method", "seed"]
    require_columns(curves, [*identity, "step", "gradient_steps", COVARIANCE, entropy_column])
    recorded = pd.DataFrame(columns=["run", "step"]) if recorded is None else recorded
    columns = _covariance_columns([*curves.columns, *recorded.columns])
    frames = []
    for run, rows in rows_by_run(curves):
        names = rows[identity].iloc[0].to_dict()
        # a window counts rollout steps, so steps that were not logged must hold a place in it
        rows = rows.set_index("step")
        rows = rows.reindex(range(rows.index[0], rows.index[-1] + 1))
        entropy = rows[entropy_column].astype(float)
        series = {SERIES_ENTROPY: entropy - entropy.shift(-1)}
        kept = recorded[recorded["run"] == run].set_index("step")
        from_records = pd.Series(rows.index.isin(kept.index), rows.index)
        for column, name in columns.items():
            logged, exact = (frame.reindex(rows.index, columns=[column])[column] for frame in (rows, kept))
            series[name] = logged.astype(float).mask(from_records, exact.astype(float))
        for name, values in series.items():
            measured = _smoothed(values, window).assign(series=name)
            of_records = from_records & (name != SERIES_ENTROPY)
            measured["source"] = of_records.map({True: RECORDS, False: LOGGED})
            measured["gradient_steps"] = rows["gradient_steps"]
            measured = measured.dropna(subset="value").reset_index(names="step")
            frames.append(measured.assign(**names).astype({"gradient_steps": int}))
    if not frames:
        return pd.DataFrame(columns=DYNAMICS_COLUMNS)
    return pd.concat(frames, ignore_index=True)[DYNAMICS_COLUMNS]


def _covariance_columns(names: Iterable[str]) -> dict[str, str]:
    """Map each covariance column to the name of its series; those by difficulty in rising order of it."""
    found = {}
    for column in names:
        if str(column).startswith(GROUP_PREFIX):
            try:
                found[column] = float(Fraction(column.removeprefix(GROUP_PREFIX)))
            except (ValueError, ZeroDivisionError) as error:
                raise ValueError(
                    f"curves: column {column} does not end in a group accuracy such as 0.125"
                ) from error
    by_accuracy = sorted(found.items(), key=lambda item: item[1])
    return {COVARIANCE: SERIES_COVARIANCE} | {column: f"group_accuracy={k:g}" for column, k in by_accuracy}


def _smoothed(values: pd.Series, window: int) -> pd.DataFrame:
    rolling = values.rolling(window, center=True, min_periods=1)
    mean, spread = rolling.mean(), rolling.std(ddof=0)
    return pd.DataFrame(
        {"value": values, "smooth": mean, "window": window, "low": mean - spread, "high": mean + spread}
    )
