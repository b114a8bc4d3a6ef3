"""Grading and fitting: answers and programs graded a second, and the law fitted to 1,000 curves with bootstrap.

    python benchmarks/analysis.py

Answers are those of grading_throughput.py, with two workers; programs those of sandbox_throughput.py, with one
sandbox, where bubblewrap is installed. Curves have 38 points (tests/unit/synthetic_runs.py) and are fitted by two
processes of one thread, with 1,000 bootstrap samples each.
"""

import json
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import measure
from measure import Goal, Row

sys.path.insert(0, str(measure.REPOSITORY / "tests/unit"))


def grade_answers(count: int) -> Row:
    """Short answers, the start of the workers included."""
    from grading_throughput import pairs

    from entropy_mechanism.rewards.math import Grader

    made = pairs(count)
    began = time.perf_counter()
    with Grader(workers=2) as grader:
        grader.grade(made)
    return rate("short answers, two workers", count, time.perf_counter() - began)


def grade_programs(count: int) -> list[Row]:
    """Different programs, by kind of test; the server is started before."""
    from sandbox_throughput import KINDS

    from entropy_mechanism.rewards.code import CodeGrader

    rows = []
    with CodeGrader(workers=1) as grader:
        for name, (code, tests) in KINDS.items():
            text = json.dumps(tests)
            grader.grade_all([code], [text])
            programs = [f"{code}\n# {n}" for n in range(count)]
            began = time.perf_counter()
            grader.grade_all(programs, [text] * count)
            rows.append(rate(f"programs, {name}, one sandbox", count, time.perf_counter() - began))
    return rows


def fit_curves(seeds: range, resamples: int) -> int:
    """Fit one curve for each seed."""
    import numpy as np
    from synthetic_runs import training

    from entropy_mechanism.analysis.law import fit_law

    fitted = 0
    for seed in seeds:
        fit = fit_law(*training(38, 0.5, np.random.default_rng(seed)), seed, resamples)
        fitted += fit.a_high > fit.a_low
    return fitted


def rate(what: str, count: int, seconds: float) -> Row:
    """A line of the table."""
    return {"what": what, "number": count, "seconds": seconds, "a second": count / seconds}


def main() -> None:
    """Measure and write the JSON file."""
    options, began = measure.options(__doc__), time.time()
    curves, resamples = (10, 100) if options.quick else (1000, 1000)
    rows = [grade_answers(100 if options.quick else 5_000)]
    if shutil.which("bwrap"):
        rows += grade_programs(5 if options.quick else 100)
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(fit_curves, [range(1), range(1)], [10, 10]))  # imports
        start = time.perf_counter()
        halves = pool.map(fit_curves, [range(curves // 2), range(curves // 2, curves)], [resamples] * 2)
        if sum(halves) != curves:
            raise ValueError("some curves could not be fitted")
        seconds = time.perf_counter() - start
    rows.append(rate(f"fits of the law with {resamples} bootstrap samples, two processes", curves, seconds))
    goals = [Goal("1,000 fits with 1,000 bootstrap samples", seconds, 20, "s")]
    measure.write("analysis", options.results, began, {"": rows}, goals)
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
