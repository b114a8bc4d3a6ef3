r"""Answers graded per second: short answers of every kind, and what a hostile one among them costs.

    python benchmarks/grading_throughput.py [--answers N --workers N --deadline S --hostile N]

The answers are one third integers, one third fractions, one third expressions, half of them right, no two alike.
A hostile answer, such as 9^{9^{9^9}} + x, takes its worker until the deadline, and the next one must start.
"""

import argparse
import os
import platform
import random
import resource
import sys
import time
from collections import Counter

from entropy_mechanism.rewards.math import DEADLINE, WORKERS, Grader


def pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """`count` different (response, gold answer), in equal parts of each kind; about half are right."""
    draw = random.Random(seed)
    made: dict[tuple[str, str], None] = {}
    while len(made) < count:
        a, b, c = draw.randint(1, 999), draw.randint(2, 99), draw.randint(2, 99)
        wrong = draw.random() < 0.5
        given, gold = [
            (f"{1000 * a + b + wrong:,}", str(1000 * a + b)),
            (rf"\dfrac{{{2 * a + wrong}}}{{{2 * b}}}", rf"\frac{{{a}}}{{{b}}}"),
            draw.choice(
                [
                    (rf"{a + wrong}+{b}\sqrt{{{c}}}", rf"{b}\sqrt{{{c}}}+{a}"),
                    (rf"({c}, {a + wrong}\pi)", rf"\left({c}, {a}\pi\right)"),
                    (rf"x^2+{b + c + wrong}x+{b * c}", rf"(x+{b})(x+{c})"),
                    (rf"\frac{{{a + wrong}n+{b}}}{{{c}}}", rf"\frac{{{b}+{a}n}}{{{c}}}"),
                    (rf"[{b},{b + a + wrong})", rf"[{b}, {b + a})"),
                ]
            ),
        ][len(made) % 3]
        made[f"so it is $\\boxed{{{given}}}$.", gold] = None
    return list(made)


def main() -> None:
    """Grade the short answers, then the hostile ones on the running workers, and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--deadline", type=float, default=DEADLINE)
    parser.add_argument("--hostile", type=int, default=3)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    print(f"{args.workers} workers, {cores} cores, {platform.machine()}, Python {platform.python_version()}")
    with Grader(workers=args.workers, deadline=args.deadline) as grader:
        seconds, outcomes = timed(grader, pairs(args.answers))
        print(f"{args.answers} short answers, the start of the workers included: {seconds:.1f} s, ", end="")
        print(f"{args.answers / seconds:.0f} a second: {outcomes}")
        for n in range(args.hostile):
            seconds, outcomes = timed(grader, hostile(1, first=n))
            print(f"a hostile answer at a deadline of {args.deadline} s: {seconds:.2f} s: {outcomes}")
            seconds, outcomes = timed(grader, pairs(3, seed=n + 1)[2:])
            print(f"the next answer: {seconds:.2f} s: {outcomes}")
    workers, own = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    spent = [usage.ru_utime + usage.ru_stime for usage in (workers, own)]
    print(f"processor time: {spent[0]:.1f} s in workers, {spent[1]:.1f} s in this process")


def hostile(count: int, first: int = 0) -> list[tuple[str, str]]:
    """`count` different hostile answers, each with a gold answer that does not refuse it at once."""
    return [(rf"\boxed{{9^{{9^{{9^9}}}} + x - {first + n}}}", r"\sqrt{x}+1") for n in range(count)]


def timed(grader: Grader, graded: list[tuple[str, str]]) -> tuple[float, str]:
    """Seconds to grade all in one call, and the outcomes in words."""
    start = time.perf_counter()
    outcomes = Counter(grader.grade(graded))
    return time.perf_counter() - start, ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())


if __name__ == "__main__":
    main()
