"""Data set settings -> problems as parquet, and a statistics file."""

from pathlib import Path
from typing import Any

import pandas as pd

from entropy_mechanism import files, tracking
from entropy_mechanism.config import ArithmeticSet, FileSet, HubSet, JoinedSet, ProgramSet, chosen, load_experiment
from entropy_mechanism.data.problems import Problem, from_frame, to_frame


def prepare(experiment: Path, data: str, parts: list[Path], output: Path, statistics: Path, results: Path) -> None:
    """Make one data set of an experiment; `parts` are the files of the sets that a joined one consists of."""
    settings = chosen("--data", data, load_experiment(experiment).data)
    params = settings.model_dump(mode="json")
    outputs = [output, statistics]
    with tracking.stage("prepare", data, results=results, params=params, inputs=parts, outputs=outputs) as record:
        problems, facts = (
            _joined(settings, parts) if isinstance(settings, JoinedSet) else _problems(settings, data)
        )
        frame = to_frame(problems)
        files.write_parquet(output, frame)
        summary = {"data": data, **facts, "sha256": files.sha256(output), "settings": params}
        files.write_json(statistics, summary)
        record.metric("problems", len(frame))
        for reason, entry in facts["dropped"].items():
            record.metric(f"dropped/{reason.replace(' ', '_').replace(':', '')}", entry["rows"])
            print(f"{data}: left out {entry['rows']}: {reason} ({', '.join(entry['examples'])} …)")
        print(f"{data}: {len(frame)} problems, for example {frame['problem'].iloc[0]}")


def _joined(settings: JoinedSet, files: list[Path]) -> tuple[list[Problem], dict[str, Any]]:
    """The problems of all parts, in the order of the parts."""
    if len(files) != len(settings.parts):
        raise ValueError(
            f"--parts: found {len(files)} files; a joined set of {', '.join(settings.parts)} needs each"
        )
    parts = [from_frame(pd.read_parquet(path), str(path)) for path in files]
    counts = {name: len(part) for name, part in zip(settings.parts, parts, strict=True)}
    return [problem for part in parts for problem in part], {
        "parts": counts,
        "kept": sum(counts.values()),
        "dropped": {},
    }


def _problems(
    settings: ArithmeticSet | ProgramSet | HubSet | FileSet, name: str
) -> tuple[list[Problem], dict[str, Any]]:
    """The problems, and what there is to say about where they come from."""
    if isinstance(settings, HubSet):
        from entropy_mechanism.data.published import read_published

        return read_published(settings)
    if isinstance(settings, FileSet):
        from entropy_mechanism.data.own import read_own

        return read_own(settings, name)
    from entropy_mechanism.data import arithmetic, programs

    if isinstance(settings, ArithmeticSet):
        problems = arithmetic.generate(settings, source=name)
    else:
        problems = programs.generate(settings, source=name)
    return problems, {"source": name, "kept": len(problems), "dropped": {}}
