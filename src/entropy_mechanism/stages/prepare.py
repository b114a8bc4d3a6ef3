"""Data set settings -> problems as parquet, and a statistics file."""

from pathlib import Path
from typing import Any

from entropy_mechanism import files, tracking
from entropy_mechanism.config import ArithmeticSet, HubSet, ProgramSet, chosen, load_experiment
from entropy_mechanism.data.problems import Problem, to_frame


def prepare(experiment: Path, data: str, output: Path, statistics: Path, results: Path) -> None:
    """Make one data set of an experiment."""
    settings = chosen("--data", data, load_experiment(experiment).data)
    params = settings.model_dump(mode="json")
    with tracking.stage("prepare", data, results=results, params=params, outputs=[output, statistics]) as record:
        problems, facts = _problems(settings, data)
        frame = to_frame(problems)
        files.write_parquet(output, frame)
        summary = {"data": data, **facts, "sha256": files.sha256(output), "settings": params}
        files.write_json(statistics, summary)
        record.metric("problems", len(frame))
        for reason, entry in facts["dropped"].items():
            record.metric(f"dropped/{reason.replace(' ', '_').replace(':', '')}", entry["rows"])
            print(f"{data}: left out {entry['rows']}: {reason} ({', '.join(entry['examples'])} …)")
        print(f"{data}: {len(frame)} problems, for example {frame['problem'].iloc[0]}")


def _problems(settings: ArithmeticSet | ProgramSet | HubSet, name: str) -> tuple[list[Problem], dict[str, Any]]:
    """The problems, and what there is to say about where they come from."""
    if isinstance(settings, HubSet):
        from entropy_mechanism.data.published import read_published

        return read_published(settings)
    from entropy_mechanism.data import arithmetic, programs

    generate = arithmetic.generate if isinstance(settings, ArithmeticSet) else programs.generate
    problems = generate(settings, source=name)
    return problems, {"source": name, "kept": len(problems), "dropped": {}}
