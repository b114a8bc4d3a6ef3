"""What is refused before the first job: targets that there are not, and programs where nothing isolates them."""

import sys
from pathlib import Path

import pytest

from entropy_mechanism import readiness
from entropy_mechanism.config import load_experiment
from entropy_mechanism.paths import UNSANDBOXED_VARIABLE
from entropy_mechanism.plan import Plan

PRESETS = Path(__file__).parents[2] / "config/experiments"
TINY, FULL = (Plan(load_experiment(PRESETS / f"{name}.yaml")) for name in ("tiny", "tiny-full"))
RULES = {"all", "figures", "fig11", "table1", "fit_law"}


def unknown(*targets, plan=TINY, name="tiny"):
    return readiness.unknown_targets(targets, RULES, plan, Path(f"{name}.yaml"), PRESETS)


def test_targets_that_there_are_and_paths_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there").touch()
    assert unknown("all", "fig11", "fit_law", "results/tiny/figures/nothing.pdf", "there") == []


def test_a_misspelt_target_is_told_with_what_it_may_mean():
    (line,) = unknown("fgi11")
    assert line.startswith("fgi11 is no target of tiny; allowed: all, data, models, training, ")
    assert "(did you mean 'fig11'?)" in line


def test_a_figure_of_another_experiment_is_told_with_the_command_that_draws_it():
    (line,) = unknown("fig09")
    assert line == (
        "fig09 is no target of tiny, but of tiny-full and paper: snakemake fig09 --config experiment=tiny-full"
    )


def test_every_target_that_is_offered_is_a_rule():
    rules = "".join(path.read_text() for path in (PRESETS.parents[1] / "rules").glob("*.smk"))
    rules += (PRESETS.parents[1] / "Snakefile").read_text()
    assert all(f"rule {name}:" in rules for name in readiness.TARGETS)


@pytest.fixture
def without_bubblewrap(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    monkeypatch.delenv(UNSANDBOXED_VARIABLE, raising=False)
    return tmp_path


def with_code_benchmark(plan):
    """The plan with a benchmark of programs, which no preset has."""
    evaluation = plan.experiment.evaluation
    benchmark = next(iter(evaluation.benchmarks.values())).model_copy(update={"data": "code-validation"})
    evaluation = evaluation.model_copy(update={"benchmarks": {"programs": benchmark}})
    return Plan(plan.experiment.model_copy(update={"evaluation": evaluation}))


FULL = with_code_benchmark(FULL)
CODE = [
    ("train", {"run": next(name for name, run in FULL.runs.items() if run.train_set == "code")}),
    ("grade", {"policy": "qwen-w64--base", "benchmark": "programs"}),
]


@pytest.mark.parametrize("job", CODE, ids=["train", "grade"])
def test_programs_are_refused_before_any_job_where_nothing_isolates_them(without_bubblewrap, monkeypatch, job):
    (line,) = readiness.faults(FULL, [job], [], here=True)
    assert "bwrap is not on the PATH; install it (Debian, Ubuntu: apt-get install bubblewrap" in line
    assert readiness.faults(FULL, [job], [], here=False) == []
    assert readiness.faults(FULL, [job], [], here=True, own_environment=True) == []
    monkeypatch.setenv(UNSANDBOXED_VARIABLE, "1")
    assert readiness.faults(FULL, [job], [], here=True) == []


def test_bubblewrap_beside_the_python_that_runs_the_jobs_will_do(without_bubblewrap):
    program = without_bubblewrap / "bin/bwrap"
    program.parent.mkdir()
    program.touch(mode=0o755)
    assert readiness.faults(FULL, CODE, [], here=True) == []


def test_arithmetic_needs_no_bubblewrap(without_bubblewrap):
    jobs = [("train", {"run": name}) for name in TINY.runs]
    assert readiness.faults(TINY, jobs, [], here=True) == []
