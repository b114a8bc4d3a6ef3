"""What is refused before the first job: targets that there are not, and programs where nothing isolates them."""

import sys
from pathlib import Path

import pytest

from entropy_mechanism import readiness
from entropy_mechanism.config import Compute, FileSet, load_experiment
from entropy_mechanism.paths import UNSANDBOXED_VARIABLE, Paths
from entropy_mechanism.plan import Plan

PRESETS = Path(__file__).parents[2] / "config/experiments"
TINY, FULL = (Plan(load_experiment(PRESETS / f"{name}.yaml")) for name in ("tiny", "tiny-full"))
RULES = {"all", "figures", "fig11", "table1", "fit_law"}
PATHS = Paths(Path("results"), "tiny")
FILES = [f"results/tiny/figures/{name}.{kind}" for name in ("fig01", "fig05", "fig11") for kind in ("pdf", "svg")]
KNOWN = readiness.Makes(RULES, FILES, lambda path: path in [*FILES, "made.jsonl"])


def unknown(*targets):
    return readiness.unknown_targets(targets, KNOWN, TINY, PATHS, PRESETS)


def forced(*names):
    return readiness.unknown_rules(names, KNOWN, PATHS, PRESETS)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_targets_that_there_are_are_left_alone(here):
    Path("there").touch()
    assert unknown("all", "fig11", "fit_law", FILES[0], "there") == []
    assert forced("fit_law", FILES[0], "there") == []


@pytest.mark.parametrize("ask", [unknown, forced])
def test_a_file_of_another_experiment_is_told_with_the_command_that_makes_it(here, ask):
    Path("my.yaml").touch()
    for owner, experiment in {"smoke": "smoke", "my": "my.yaml"}.items():
        path = f"results/{owner}/figures/fig01.pdf"
        assert ask(path) == [f"{path} is of experiment {owner}: snakemake {path} --config experiment={experiment}"]
    (line,) = ask("results/theirs/report/index.html")
    assert line == (
        "results/theirs/report/index.html is no file of tiny; its files are in results/tiny "
        "(those of an experiment of yours need --config experiment=FILE.yaml)"
    )


@pytest.mark.parametrize("ask", [unknown, forced])
def test_the_results_folder_where_there_is_none_yet_is_no_file(here, ask):
    (line,) = ask("results/")
    assert line.startswith("results/ is no file of tiny; its files are in results/tiny")


@pytest.mark.parametrize("ask", [unknown, forced])
def test_a_misspelt_file_is_told_with_those_that_are_like_it(here, ask):
    (line,) = ask("results/tiny/figures/fig1.pdf")
    assert line.startswith(
        "results/tiny/figures/fig1.pdf is no file of tiny; did you mean results/tiny/figures/fig"
    )
    assert FILES[0] in line
    (line,) = ask(str(here / FILES[0]))  # Snakemake takes it for another file
    assert f"did you mean {FILES[0]}" in line


def test_a_rule_that_is_forced_and_not_there_is_told_with_the_rules():
    assert forced("fit_laww") == [
        "fit_laww is no rule; allowed: all, fig11, figures, fit_law, table1 (did you mean 'fit_law'?)"
    ]


def with_file(path):
    """The tiny experiment with a data set that stands in a file."""
    settings = FileSet(kind="file", path=path)
    return Plan(TINY.experiment.model_copy(update={"data": TINY.experiment.data | {"mine": settings}}))


def test_a_folder_of_a_user_without_a_name_is_refused_by_the_users_number(here, monkeypatch):
    monkeypatch.setattr(readiness.os, "access", lambda path, mode: False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # as in a container
    (line,) = readiness.faults(TINY, [], [here], here=True)
    owner = f"user {here.stat().st_uid}"
    assert line == f"{here} belongs to {owner} and cannot be written; choose another folder with `results`"


def test_a_data_set_whose_file_is_missing_is_named_with_its_key(here):
    def missing(path):
        return readiness.missing_files(with_file(path), PATHS, KNOWN)

    assert missing("nope.jsonl") == [f"data.mine.path: there is no nope.jsonl (from {here}); correct the path"]
    assert missing("made.jsonl") == []  # by a rule
    Path("there.csv").touch()
    assert missing("there.csv") == []
    prepared = Path(PATHS.data("mine"))
    prepared.parent.mkdir(parents=True)
    prepared.touch()
    assert missing("nope.jsonl") == []


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


def test_all_that_a_gpu_experiment_lacks_here_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(readiness.importlib.util, "find_spec", lambda name: None)
    (model, *_) = TINY.models
    compute = {model: Compute(device="cuda", engine="vllm")}
    plan = Plan(TINY.experiment.model_copy(update={"compute": compute}))
    train = ("train", {"run": next(name for name, run in plan.runs.items() if run.model == model)})
    sample = ("sample_2", {"policy": f"{model}--base"})
    for job in (train, sample):
        engine, device = readiness.faults(plan, [job], [], here=True, devices=str(tmp_path))
        assert engine.startswith(f"compute.{model} asks for engine vllm, and {sys.executable} has no vLLM; ")
        assert device.startswith(f"compute.{model}.device is cuda, and this machine shows no GPU; ")
        assert readiness.faults(plan, [job], [], here=False, devices=str(tmp_path)) == [engine]
        assert readiness.faults(plan, [job], [], here=False, own_environment=True) == []
    monkeypatch.setattr(readiness.importlib.util, "find_spec", lambda name: name)
    assert readiness.faults(plan, [train], [], here=True, devices=str(tmp_path)) == [device]
