"""Paired comparison of two policies on the same problems.

Problems differ more from one another than policies do: on 30 problems the standard error of one score is 6 to 8
points, that of a difference by problem often a fraction of it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import permutation_test

from entropy_mechanism.evaluation.metrics import MACRO, POOLED, entering_protocol, scored_problems
from entropy_mechanism.statistics import cluster_bootstrap_means, generator, percentile_interval

COMPARISON_COLUMNS = ["benchmark", "protocol", "problems", "difference", "low", "high", "p"]


def compare(
    grades_by_benchmark: Mapping[str, pd.DataFrame],
    reference_by_benchmark: Mapping[str, pd.DataFrame],
    protocols: Mapping[str, Sequence[str]],
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Score of a policy minus that of the reference; a row per benchmark and protocol, then `pooled` and `macro`.

    `difference` is the mean over problems of the difference of their scores, [`low`, `high`] its percentile
    bootstrap interval over problems, and `p` the two-sided p-value of a permutation test that swaps the two
    policies within problems (for `pooled` within all problems at once; none for `macro`). Averages are formed as
    in `metrics.scores`. Raises ValueError, naming the benchmark, where the two did not answer the same problems.
    """
    rows, entering = [], []
    for benchmark, listed in protocols.items():
        for protocol in listed:
            try:
                ours = scored_problems(grades_by_benchmark[benchmark], protocol)
                theirs = scored_problems(reference_by_benchmark[benchmark], protocol)
            except ValueError as error:
                raise ValueError(f"{benchmark}: {error}") from error
            if list(ours.index) != list(theirs.index):
                lost = set(ours.index) ^ set(theirs.index)
                raise ValueError(
                    f"{benchmark}: the policies did not answer the same problems ({len(lost)} differ)"
                )
            differences = (ours - theirs).to_numpy()
            replicates = cluster_bootstrap_means(differences, resamples, generator(seed, benchmark))
            p = _swapping(differences, resamples, generator(seed, benchmark, "swap"))
            rows.append(
                (
                    benchmark,
                    protocol,
                    len(differences),
                    differences.mean(),
                    *percentile_interval(replicates, level),
                    p,
                )
            )
            if protocol == entering_protocol(listed):
                samples = max(1, int(protocol.partition("@")[2] or 1))
                entering.append((differences, replicates, samples))
    return pd.DataFrame(rows + _averages(entering, seed, resamples, level), columns=COMPARISON_COLUMNS)


def _swapping(differences: np.ndarray, resamples: int, draws: np.random.Generator) -> float:
    """Two-sided p-value of the mean of paired differences if the two of a pair may be swapped; 1 if all are 0."""
    if not differences.any():
        return 1.0
    found = permutation_test(
        (differences, np.zeros_like(differences)),
        lambda ours, theirs, axis: (ours - theirs).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        rng=draws,
    )
    return float(found.pvalue)


def _averages(
    entering: list[tuple[np.ndarray, np.ndarray, int]], seed: int, resamples: int, level: float
) -> list[tuple]:
    """Rows `pooled` (problems weighted by their samples) and `macro` (benchmarks weighted alike)."""
    if not entering:
        return []
    problems = sum(len(differences) for differences, _, _ in entering)
    weighted = np.concatenate([differences * samples for differences, _, samples in entering])
    pooled_p = _swapping(weighted, resamples, generator(seed, POOLED, "swap"))
    rows = []
    for name, weights, p in (
        (POOLED, [len(differences) * samples for differences, _, samples in entering], pooled_p),
        (MACRO, [1.0] * len(entering), float("nan")),
    ):
        difference = np.average([differences.mean() for differences, _, _ in entering], weights=weights)
        replicates = np.average([replicate for _, replicate, _ in entering], axis=0, weights=weights)
        rows.append((name, "mixed", problems, float(difference), *percentile_interval(replicates, level), p))
    return rows
