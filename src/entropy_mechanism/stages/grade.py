"""Responses -> grades, which needs no model."""

import time
from pathlib import Path

import pandas as pd

from entropy_mechanism import files, tracking
from entropy_mechanism.config import GraderName
from entropy_mechanism.data.problems import from_frame
from entropy_mechanism.rewards.code import extract_code
from entropy_mechanism.rewards.grading import Grader
from entropy_mechanism.rewards.math import voted_answer
from entropy_mechanism.rewards.outcome import Outcome


def grade_samples(
    samples: Path, problems: Path, grader: GraderName, key: str, output: Path, results: Path
) -> None:
    """Grade every response of a samples file by its problem's tests or answer.

    Raises ValueError for a response to a problem that is not there.
    """
    with tracking.stage(
        "grade",
        key,
        results=results,
        params={"grader": grader},
        inputs=[samples, problems],
        outputs=[output],
    ) as record:
        known = {p.id: p for p in from_frame(pd.read_parquet(problems), str(problems))}
        frame = pd.read_parquet(samples)
        unknown = set(frame["problem_id"]) - set(known)
        if unknown:
            raise ValueError(f"{samples} answers problems that {problems} does not hold, e.g. {min(unknown)}")
        asked = [known[name] for name in frame["problem_id"]]
        responses = frame["response"].tolist()
        began = time.monotonic()
        with Grader(grader) as graded:
            verdicts = graded.grade_all(responses, asked)
        seconds = time.monotonic() - began
        outcomes = [verdict.outcome for verdict in verdicts]
        grades = frame[["problem_id", "decoding", "sample"]].copy()
        grades["answer"] = [
            extract_code(response) if problem.tests else voted_answer(response)
            for response, problem in zip(responses, asked, strict=True)
        ]
        grades["outcome"] = [outcome.value for outcome in outcomes]
        grades["correct"] = [outcome is Outcome.CORRECT for outcome in outcomes]
        grades["reason"] = [verdict.reason for verdict in verdicts]
        files.write_parquet(output, grades)
        counts = {outcome.value: outcomes.count(outcome) for outcome in Outcome}
        shares = {f"outcome/{name}": count / max(1, len(outcomes)) for name, count in counts.items()}
        record.metrics({**shares, **{f"count/{name}": n for name, n in counts.items()}, "time/grade": seconds})
        listed = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        print(f"{key}: {listed or 'no responses'}; {seconds:.1f} s")
