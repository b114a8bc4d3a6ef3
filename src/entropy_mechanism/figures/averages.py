"""Averages over benchmarks, of the benchmarks that all shown policies answered: others would not compare."""

import numpy as np
import pandas as pd

NAMES = ("pooled", "macro")


def answered(frame: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Benchmarks of each policy in frames of scores or comparisons, without the averages."""
    single = frame[~frame["benchmark"].isin(NAMES)]
    return {policy: tuple(dict.fromkeys(rows["benchmark"])) for policy, rows in single.groupby("policy")}


def shared(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with averages over the benchmarks that all policies answered; none where they share no benchmark.

    The averages of a policy that answered more are computed again from its scores, without interval: `pooled`
    weighs each benchmark by its samples, `macro` all alike, as in `evaluation.metrics`.
    """
    benchmarks = answered(scores)
    common = set.intersection(*map(set, benchmarks.values())) if benchmarks else set()
    parts = []
    for policy, rows in scores.groupby("policy", sort=False):
        single = rows[~rows["benchmark"].isin(NAMES)]
        if set(benchmarks.get(policy, ())) == common:
            parts.append(rows)
        elif common:
            entering = single[single["benchmark"].isin(common)].drop_duplicates("benchmark")
            parts += [single, pd.DataFrame([_average(entering, name) for name in NAMES])]
        else:
            parts.append(single)
    return pd.concat(parts, ignore_index=True) if parts else scores


def _average(entering: pd.DataFrame, name: str) -> dict:
    row = entering.iloc[0].to_dict() | {"benchmark": name, "protocol": "mixed"}
    for prefix in ("", "clean_"):
        samples, scores = (entering[f"{prefix}{part}"].astype(float) for part in ("samples", "score"))
        known = scores.notna() & (samples > 0)
        weights = samples[known] if name == "pooled" else None
        row[f"{prefix}score"] = np.average(scores[known], weights=weights) if known.any() else np.nan
        row |= {f"{prefix}{part}": entering[f"{prefix}{part}"].sum() for part in ("problems", "samples")}
        row |= {f"{prefix}low": np.nan, f"{prefix}high": np.nan}
    return row
