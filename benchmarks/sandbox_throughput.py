"""Programs per second in the sandbox, by kind of tests: the forking server, and one bubblewrap for each program.

    python benchmarks/sandbox_throughput.py [--programs 200] [--workers 1]

Programs are all different, since equal ones are run once.
"""

import argparse
import json
import time

from entropy_mechanism.rewards.code import CodeGrader
from entropy_mechanism.rewards.math import Outcome
from entropy_mechanism.rewards.sandbox import Job, Limits, Sandbox

KINDS = {
    "stdio, 1 test": (
        "print(sum(map(int, input().split())))",
        {"kind": "stdio", "inputs": ["1 2"], "outputs": ["3"]},
    ),
    "stdio, 8 tests": (
        "print(sum(map(int, input().split())))",
        {"kind": "stdio", "inputs": ["1 2"] * 8, "outputs": ["3"] * 8},
    ),
    "call, 8 tests": (
        "def f(x): return x * x",
        {"kind": "call", "function": "f", "inputs": [[n] for n in range(8)], "outputs": [n * n for n in range(8)]},
    ),
    "pytest, 2 tests": (
        "def f(x): return x * x",
        {
            "kind": "pytest",
            "code": "from solution import f\ndef test_a(): assert f(2) == 4\ndef test_b(): assert f(3) == 9\n",
        },
    ),
}


def main() -> None:
    """Measure and print one line per kind."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    with CodeGrader(workers=arguments.workers) as grader:
        for name, (code, tests) in KINDS.items():
            text = json.dumps(tests)
            grader.grade_all([code], [text])
            programs = [f"{code}\n# {n}" for n in range(arguments.programs)]
            start = time.perf_counter()
            verdicts = grader.grade_all(programs, [text] * len(programs))
            seconds = time.perf_counter() - start
            assert all(verdict.outcome is Outcome.CORRECT for verdict in verdicts)
            say(f"server, {name}", seconds / len(programs))
    few = max(1, arguments.programs // 20)
    start = time.perf_counter()
    for _ in range(few):
        sandbox = Sandbox(Limits())
        sandbox.run(Job("program", {"code": "print(1)"}))
        sandbox.close()
    say("one bubblewrap each, stdio, 1 test", (time.perf_counter() - start) / few)


def say(name: str, seconds: float) -> None:
    """One line."""
    print(f"{name:40s} {1000 * seconds:8.1f} ms  {1 / seconds:8.1f} programs per second", flush=True)


if __name__ == "__main__":
    main()
