"""Frames of the dynamics for figures and report: exact checks, and invented changes that Lemma 1 halves."""

import functools

import numpy as np
import pandas as pd

from entropy_mechanism.analysis.columns import ENTROPY_BEFORE_FILTER
from entropy_mechanism.analysis.dynamics_summary import SUMMARY_COLUMNS
from entropy_mechanism.analysis.entropy_change import ENTROPY_CHANGE_COLUMNS
from entropy_mechanism.analysis.tabular import counterexample_paths, counterexamples, tabular, tabular_left_out
from entropy_mechanism.figures import style

SLOPE = 0.5
EVERY = 2


@functools.lru_cache
def fixed():
    """Frames that no run enters; small ones."""
    sizes = (1e-3, 1e-2, 1e-1)
    checks = {"tabular": tabular(2, sizes), "tabular_left_out": tabular_left_out(2, sizes)}
    return checks | {"counterexamples": counterexamples(), "counterexample_paths": counterexample_paths(40)}


def with_dynamics(frames):
    """`frames` with those of the dynamics for its runs: every second step measures, half of Lemma 1's change."""
    curves = frames["curves"].assign(**{ENTROPY_BEFORE_FILTER: frames["curves"][style.ENTROPY]})
    changes, summary = [], []
    for _, rows in curves.groupby("run", sort=False):
        lost = -np.diff(rows[ENTROPY_BEFORE_FILTER], append=np.nan)
        measured = rows.assign(measured=-lost, predicted=-2 * lost, same_prefix=-2 * SLOPE * lost)
        measured = measured.assign(state_distribution=0.0, logit_advantage=0.3, logit_weighted_advantage=0.2)
        measured = measured.iloc[:-1:EVERY]
        changes.append(measured[ENTROPY_CHANGE_COLUMNS])
        first = rows.iloc[0]
        values = dict.fromkeys(SUMMARY_COLUMNS, 0.1) | {"steps": len(rows) - 1, "same_prefix_slope": SLOPE}
        values |= {"positive_share": 0.9 + 0.02 * first["seed"], "same_prefix_slope_high": SLOPE + 0.2}
        summary.append(values | {name: first[name] for name in ("run", "method", "seed")})
    return (
        frames
        | fixed()
        | {
            "curves": curves,
            "entropy_change": pd.concat(changes, ignore_index=True),
            "dynamics_summary": pd.DataFrame(summary),
        }
    )
