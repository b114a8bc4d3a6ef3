"""Scores of graded answers: greedy accuracy, avg@k, pass@k, maj@k, and averages over benchmarks (Table 2).

Shapes: P problems of a benchmark, N samples of each problem.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from entropy_mechanism.statistics import cluster_bootstrap_means, generator, percentile_interval

SCORE_COLUMNS = ["benchmark", "protocol", "problems", "samples", "score", "low", "high"]
POOLED, MACRO, MIXED = "pooled", "macro", "mixed"


@dataclass(frozen=True)
class GradedSamples:
    """Grades of one benchmark, problems and samples in rising order of their numbers.

    correct_PN bool; answer_PN object with None for a sample without an answer, or None when the grades have
    no column `answer`; problem_P the problems' ids.
    """

    correct_PN: np.ndarray
    answer_PN: np.ndarray | None
    problem_P: list[str]


def graded_samples(grades: pd.DataFrame) -> GradedSamples:
    """Arrange a grades frame (columns problem_id, sample, correct and, for maj@k, answer) by problem.

    A sample counts whatever its outcome: no answer, a timeout and a truncation are wrong answers. Raises
    ValueError for an empty frame, missing columns, a sample graded twice, a grade that is not a boolean, or
    problems with different numbers of samples (an incomplete file would weigh problems unequally).
    """
    missing = [column for column in ("problem_id", "sample", "correct") if column not in grades.columns]
    if missing:
        raise ValueError(f"grades: missing {', '.join(missing)}; found {', '.join(map(str, grades.columns))}")
    if grades.empty:
        raise ValueError("grades: no rows")
    if grades["correct"].isna().any() or not pd.api.types.is_bool_dtype(grades["correct"]):
        raise ValueError(f"grades: column correct must be true or false, found {grades['correct'].dtype} or null")
    if grades.duplicated(["problem_id", "sample"]).any():
        row = grades[grades.duplicated(["problem_id", "sample"])].iloc[0]
        raise ValueError(f"grades: problem {row['problem_id']!r} has sample {row['sample']} twice")
    counts = grades.groupby("problem_id").size()
    if counts.nunique() > 1:
        raise ValueError(
            f"grades: every problem needs the same number of samples, found {counts.max()} "
            f"for {counts.idxmax()!r} and {counts.min()} for {counts.idxmin()!r}"
        )
    ordered = grades.sort_values(["problem_id", "sample"])
    shape = (len(counts), int(counts.iloc[0]))
    answers = None
    if "answer" in ordered:
        answers = ordered["answer"].astype(object).where(ordered["answer"].notna(), None).to_numpy().reshape(shape)
    return GradedSamples(ordered["correct"].to_numpy(dtype=bool).reshape(shape), answers, list(counts.index))


def average(correct_PN: np.ndarray) -> np.ndarray:
    """Return each problem's share of correct samples, shape (P,): avg@N, and greedy accuracy where N = 1."""
    return correct_PN.mean(axis=1)


def pass_at_k(correct_PN: np.ndarray, k: int) -> np.ndarray:
    """Return the unbiased pass@k of each problem, 1 - C(N - c, k) / C(N, k), shape (P,).

    c is a problem's number of correct samples; the value is the chance that k of the N samples, drawn without
    replacement, hold a correct one (Chen et al. 2021). Computed as a product, since the binomials overflow.
    Raises ValueError unless 1 <= k <= N.
    """
    samples = correct_PN.shape[1]
    _require_enough("pass", k, samples)
    wrong = samples - correct_PN.sum(axis=1)
    drawn = np.arange(k)
    # with fewer than k wrong samples one factor is exactly zero, and the product with it
    return 1 - ((wrong[:, None] - drawn) / (samples - drawn)).prod(axis=1)


def majority_at_k(correct_PN: np.ndarray, answer_PN: np.ndarray, k: int) -> np.ndarray:
    """Return each problem's accuracy under majority vote of k samples, shape (P,).

    The N samples are cut into floor(N / k) consecutive groups, a remainder left out, and the groups' results
    averaged. In a group the most frequent answer wins; of equally frequent answers the one that was given
    first. Samples without an answer (None) do not vote, and a group without any vote is wrong. The winner is
    as right as the first sample that gave it. Answers are compared as they are: normalise them before.
    Raises ValueError unless 1 <= k <= N.
    """
    problems, samples = correct_PN.shape
    _require_enough("maj", k, samples)
    groups = samples // k
    right = [
        _majority_is_right(correct_PN[p, g * k : (g + 1) * k], answer_PN[p, g * k : (g + 1) * k])
        for p in range(problems)
        for g in range(groups)
    ]
    return np.array(right, dtype=float).reshape(problems, groups).mean(axis=1)


def _majority_is_right(correct: np.ndarray, answers: np.ndarray) -> bool:
    votes: dict[object, int] = {}
    right: dict[object, bool] = {}
    for answer, is_right in zip(answers, correct, strict=True):
        if answer is not None:
            votes[answer] = votes.get(answer, 0) + 1
            right.setdefault(answer, bool(is_right))
    # max returns the first of equals, and a dict keeps the order in which answers were first given
    return right[max(votes, key=votes.__getitem__)] if votes else False


def _require_enough(name: str, k: int, samples: int) -> None:
    if not 1 <= k <= samples:
        raise ValueError(f"{name}@{k}: k must lie between 1 and the number of samples per problem, {samples}")


def parse_protocol(protocol: str) -> tuple[str, int]:
    """Split `greedy`, `avg@k`, `pass@k` or `maj@k` into name and k (1 for greedy); ValueError otherwise."""
    match = re.fullmatch(r"(greedy)|(avg|pass|maj)@([1-9][0-9]*)", protocol)
    if match is None:
        raise ValueError(f"protocol is {protocol!r}, allowed are greedy, avg@k, pass@k and maj@k, as in avg@32")
    return (match[1], 1) if match[1] else (match[2], int(match[3]))


def problem_scores(graded: GradedSamples, protocol: str) -> np.ndarray:
    """Return the score of each problem under `protocol`, shape (P,), between 0 and 1.

    greedy and avg@k use every sample and therefore need exactly 1 and k per problem; pass@k and maj@k need at
    least k. Raises ValueError otherwise, or when maj@k is asked of grades without answers.
    """
    name, k = parse_protocol(protocol)
    samples = graded.correct_PN.shape[1]
    if name in ("greedy", "avg"):
        if samples != k:
            raise ValueError(f"{protocol} needs exactly {k} samples per problem, found {samples}")
        return average(graded.correct_PN)
    if name == "pass":
        return pass_at_k(graded.correct_PN, k)
    if graded.answer_PN is None:
        raise ValueError(f"{protocol} needs the column answer in the grades")
    return majority_at_k(graded.correct_PN, graded.answer_PN, k)


def scored_problems(grades: pd.DataFrame, protocol: str) -> pd.Series:
    """Score of each problem under `protocol` from the rows of its decoding, indexed by problem_id.

    Raises ValueError for what `graded_samples` and `problem_scores` refuse.
    """
    graded = graded_samples(_decoded(grades, protocol))
    return pd.Series(problem_scores(graded, protocol), index=graded.problem_P)


def entering_protocol(listed: Sequence[str]) -> str | None:
    """The protocol of a benchmark that enters the averages: the first greedy or avg@k."""
    return next((protocol for protocol in listed if parse_protocol(protocol)[0] in ("greedy", "avg")), None)


def scores(
    grades_by_benchmark: Mapping[str, pd.DataFrame],
    protocols: Mapping[str, Sequence[str]],
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Score one policy: a row per benchmark and protocol, then the two averages (SCORE_COLUMNS).

    `protocols` lists those of each benchmark; a single string stands for a list of one. Where grades have a
    column `decoding`, greedy is scored on its rows `greedy` and the other protocols on its rows `sampled`.
    `samples` counts the graded samples that a protocol uses. The first greedy or avg@k protocol of each
    benchmark enters

    - `pooled`: correct samples over all samples of all benchmarks, the `average` of the paper's Table 2. A
      benchmark counts by problems x samples, so AIME and AMC with avg@32 weigh 32 times their problems;
    - `macro`: the plain mean of the benchmarks' scores.

    Their protocol is the benchmarks' common one, or `mixed`. Intervals are percentile bootstrap intervals
    over problems, drawn within each benchmark with all their samples; they have no width where every problem
    scores the same. Each benchmark has its own stream, so policies scored with one `seed` are resampled
    alike. Raises ValueError naming the benchmark for what `graded_samples` and `problem_scores` refuse.
    """
    rows, entering = [], []
    for benchmark, grades in grades_by_benchmark.items():
        if benchmark not in protocols:
            raise ValueError(f"{benchmark}: no protocol given; there are some for {', '.join(protocols)}")
        given = protocols[benchmark]
        listed = [given] if isinstance(given, str) else given
        for protocol in listed:
            try:
                graded = graded_samples(_decoded(grades, protocol))
                values = problem_scores(graded, protocol)
            except ValueError as error:
                raise ValueError(f"{benchmark}: {error}") from error
            replicates = cluster_bootstrap_means(values, resamples, generator(seed, benchmark))
            low, high = percentile_interval(replicates, level)
            size = (values.size, graded.correct_PN.size)
            rows.append((benchmark, protocol, *size, float(values.mean()), low, high))
            if protocol == entering_protocol(listed):
                entering.append((rows[-1], replicates))
    return pd.DataFrame(rows + _averages(entering, level), columns=SCORE_COLUMNS)


def _decoded(grades: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """The rows that a protocol is about."""
    if "decoding" not in grades:
        return grades
    return grades[grades["decoding"] == ("greedy" if protocol == "greedy" else "sampled")]


def _averages(entering: list[tuple[tuple, np.ndarray]], level: float) -> list[tuple]:
    """Rows `pooled` and `macro` from the entering rows and their bootstrap replicates."""
    if not entering:
        return []
    frame = pd.DataFrame([row for row, _ in entering], columns=SCORE_COLUMNS)
    replicates = np.stack([replicate for _, replicate in entering])
    protocol = frame["protocol"].iloc[0] if frame["protocol"].nunique() == 1 else MIXED
    rows = []
    for name, weights in ((POOLED, frame["samples"]), (MACRO, np.ones(len(frame)))):
        low, high = percentile_interval(np.average(replicates, axis=0, weights=weights), level)
        score = float(np.average(frame["score"], weights=weights))
        rows.append((name, protocol, int(frame["problems"].sum()), int(frame["samples"].sum()), score, low, high))
    return rows
