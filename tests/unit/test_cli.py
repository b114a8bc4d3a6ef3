"""The command line: quick help for every stage, and failures as one line."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from entropy_mechanism import cli, help, schema
from entropy_mechanism.config import GraderName

ROOT = Path(__file__).parents[2]


def commands(parser, before=()):
    """Every command below `parser` by its words, such as `track sync`."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                found |= commands(command, (*before, name)) or {" ".join((*before, name)): command}
    return found


STAGES = commands(cli.parser())


def run(capsys, *argv):
    """Exit status, stdout and stderr of one call in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(part) for part in argv])
    captured = capsys.readouterr()
    code = caught.value.code
    if isinstance(code, str):  # sys.exit prints a text and exits with status 1
        return 1, captured.out, captured.err + code + "\n"
    return code or 0, captured.out, captured.err


NO_FILES = "track|audit|lineage|restore|preflight|schema|render|memory|plan|tabular|completion"
"""Stages that are told of no file."""


@pytest.mark.parametrize("stage", STAGES)
def test_help_of_a_stage_says_what_it_does_and_what_each_option_is(capsys, stage):
    status, text, _ = run(capsys, *stage.split(), "--help")
    assert status == 0
    assert STAGES[stage].description in " ".join(text.split())
    for action in STAGES[stage]._actions:
        assert action.help, f"{stage} {action.dest} has no help"
        assert all(option in text for option in action.option_strings)


@pytest.mark.parametrize("stage", [name for name in STAGES if not re.match(NO_FILES, name)])
def test_help_of_a_stage_names_its_outputs_and_inputs(capsys, stage):
    _, text, _ = run(capsys, *stage.split(), "--help")
    assert re.search(r"output: |--outputs ", text)
    assert re.search(r"input: |--(frames|grades|items) ", text)


@pytest.mark.parametrize("stage", STAGES)
def test_help_of_a_stage_shows_an_example_that_its_parser_takes(capsys, stage):
    _, text, _ = run(capsys, *stage.split(), "--help")
    shown = text.partition("example:\n")[2]
    command = shlex.split(shown.replace("\\\n", " "))
    assert " ".join(command).startswith(f"entropy-mechanism {stage}")
    assert cli.parser().parse_args(command[1:])
    assert all(len(line) <= 100 for line in shown.splitlines())


def test_there_is_an_example_of_every_stage_and_of_nothing_else():
    assert set(help.EXAMPLES) == set(STAGES)


def test_help_shows_defaults_where_there_are_any(capsys):
    _, text, _ = run(capsys, "grade", "--help")
    assert "(default: strict)" in text
    assert "(default: None)" not in text
    _, text, _ = run(capsys, "train", "--help")
    assert "None" not in text
    assert "--deadline-seconds SECONDS" in text


def test_an_experiment_is_named_as_for_snakemake(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    by_name, by_file = (
        run(capsys, "plan", "--experiment", name) for name in ("smoke", "config/experiments/smoke.yaml")
    )
    assert by_name == by_file
    assert by_name[0] == 0
    status, _, text = run(capsys, "plan", "--experiment", "smok")
    assert status == 2
    assert text.splitlines()[-1].endswith(
        "error: argument --experiment: 'smok' is not in config/experiments nor the path of a .yaml file; "
        "allowed: paper, smoke, tiny, tiny-full (did you mean 'smoke'?)"
    )
    status, _, text = run(capsys, "memory", "--experiment", "absent.yaml")
    assert (status, text) == (1, "error: absent.yaml: no such file\n")


def test_help_says_what_exit_statuses_mean(capsys):
    _, text, _ = run(capsys, "--help")
    documented = (ROOT / "docs/architecture.md").read_text()
    for status, word in {"0": "done", "1": "failed", "2": "usage", "75": "checkpoint"}.items():
        assert re.search(rf"^  {status} .*{word}", text, re.MULTILINE)
        assert re.search(rf"^\| {status} \| .*{word}", documented, re.MULTILINE)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_stage(capsys, shell):
    status, text, _ = run(capsys, "completion", shell)
    assert status == 0
    assert all(word in text for stage in STAGES for word in stage.split())


def test_bash_completes_stages_and_options(capsys, tmp_path):
    script = tmp_path / "completion"
    script.write_text(run(capsys, "completion", "bash")[1])
    for words, expected in {
        ("entropy-mechanism", "deco"): "decontaminate",
        ("entropy-mechanism", "train", "--dead"): "--deadline-seconds",
        ("entropy-mechanism", "grade", "--grader", "pa"): "paper",
    }.items():
        program = f"""
source {script}
COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE="{" ".join(words)}"
COMP_POINT=${{#COMP_LINE}}
function=$(complete -p entropy-mechanism | sed -n 's/.*-F \\([^ ]*\\).*/\\1/p')
$function entropy-mechanism {words[-1]} {words[-2]}
printf '%s\n' "${{COMPREPLY[@]}}"
"""
        done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
        assert done.stdout.split() == [expected], done.stderr


def test_a_full_disk_is_one_line_whichever_library_met_it(capsys, monkeypatch):
    def fail(**arguments):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RuntimeError("unexpected pos 64 vs 0") from error

    def fail_in_words(**arguments):
        raise Exception("I/O error: No space left on device (os error 28)")

    def fail_on_a_file(**arguments):
        raise OSError(28, "No space left on device", "there/file")

    def fail_tidying_up(**arguments):
        try:
            fail_on_a_file()
        except OSError:
            raise FileNotFoundError(2, "No such file or directory", "elsewhere/marker")  # noqa: B904

    cases = (
        (fail, "here"),
        (fail_in_words, "here"),
        (fail_on_a_file, "there/file"),
        (fail_tidying_up, "there/file"),
    )
    for failure, where in cases:
        monkeypatch.setattr(cli, "_stage", lambda module, function, failure=failure: failure)
        status, _, text = run(capsys, "audit", "--results", "here")
        assert (status, text.count("\n")) == (1, 1)
        assert text.startswith(f"error: no space left on the file system of {where}; free some")


def test_help_lists_every_stage(capsys):
    status, text, _ = run(capsys, "--help")
    assert status == 0
    assert len(STAGES) > 15
    text += run(capsys, "track", "--help")[1]
    assert all(re.search(rf"^ +{stage.split()[-1]}\s", text, re.MULTILINE) for stage in STAGES)


def test_a_wrong_option_shows_the_usage(capsys):
    status, _, text = run(capsys, "resolve", "--run", "x")
    assert status == 2
    assert "the following arguments are required: --experiment, --output" in text


EXPERIMENT = """
title: wrong
data:
  train: {kind: arithmetic, split: train, operands: [2, 3], problems: 10}
  held: {kind: arithmetic, split: test, operands: [2, 3], problems: 10}
validation: trian
models: {nano: {kind: tiny, layers: 1, width: 8, heads: 1, kv_heads: 1, warmup: {steps: 1}}}
methods: {grpo: {objective: {name: ppo-clip}}}
training: {steps: 1, prompts: 2, samples: 2, updates: 1, learning_rate: 1e-3, max_response: 8}
runs: [{models: [nano], train_sets: [train], methods: [grpo], seeds: [1]}]
evaluation: {max_response: 8, benchmarks: {easy: {data: held, protocols: [greedy]}}}
"""


def resolve(experiment, tmp_path, name="nano--train--grpo--s1"):
    output = tmp_path / "run.yaml"
    return ["resolve", "--experiment", experiment, "--run", name, "--output", output, "--results", tmp_path]


def test_a_stage_reads_its_experiment_and_ends_with_status_0(capsys, tmp_path):
    path = tmp_path / "right.yaml"
    path.write_text(EXPERIMENT.replace("trian", "held"))
    assert run(capsys, *resolve(path, tmp_path))[0] == 0
    assert "run: nano--train--grpo--s1" in (tmp_path / "run.yaml").read_text()


def test_a_missing_experiment_is_one_line(capsys, tmp_path):
    absent = tmp_path / "absent.yaml"
    assert run(capsys, *resolve(absent, tmp_path)) == (1, "", f"error: {absent}: no such file\n")


def test_a_wrong_experiment_is_one_line(capsys, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(EXPERIMENT)
    status, _, text = run(capsys, *resolve(path, tmp_path))
    assert status == 1
    assert text == (
        f"error: {path}: validation: 'trian' is not defined in data; allowed: train, held "
        "(did you mean 'train'?)\n"
    )


def test_an_unknown_run_is_one_line(capsys, tmp_path):
    path = tmp_path / "right.yaml"
    path.write_text(EXPERIMENT.replace("trian", "held"))
    status, _, text = run(capsys, *resolve(path, tmp_path, "nano--train--gpro--s1"))
    assert status == 1
    assert re.fullmatch(r"error: no run is named 'nano--train--gpro--s1'; .*\n", text)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "figure --name fig99 --frames a --outputs b",
            "figure or table: 'fig99' is not defined; allowed: fig01, ",
        ),
        ("table --name tabel1 --frames a --outputs b", "(did you mean 'table1'?)"),
        (
            "score --policy grpo --grades easy=a --overlaps b --output c",
            "--policy: 'grpo' is not defined; allowed: ",
        ),
        ("score --policy nano--base --grades eays=a --overlaps b --output c", "--grades: 'eays' is not defined"),
        (
            "score --policy nano--base --grades easy --overlaps b --output c",
            "--grades: found 'easy'; allowed: NAME=",
        ),
        ("compare --policy grpo --grades easy=a --references b=c --output d", "--policy: 'grpo' is not defined"),
        (
            "compare --policy nano--base --grades easy=a --references x/easy=c --output d",
            "--references: 'x/easy' is",
        ),
        (
            "sample --policy a --model nano --problems eays=a --outputs easy=b --store s --key k",
            "--problems: 'eays'",
        ),
        (
            "sample --policy a --model nano --problems easy=a --outputs eays=b --store s --key k",
            "--outputs: 'eays'",
        ),
        (
            "decontaminate --train-set a --tested x=b --key train --output c --table d",
            "--tested: 'x' is not defined",
        ),
        ("fit-law --run r --curves c --outputs lwa.parquet", "--outputs: 'lwa' is not defined; allowed: law, "),
        ("published --outputs other.parquet", "--outputs: 'other' is not defined; allowed: published_law, "),
        (
            "entropy-dynamics --run r --curves c --token-covariances t --covariance-levels l --outputs d.parquet",
            "--outputs: 'd' is not defined; allowed: consumption, ",
        ),
        ("tabular --outputs tabluar.parquet", "(did you mean 'tabular'?)"),
        ("tabular --outputs a/tabular.parquet b/tabular.parquet", "b/tabular.parquet are both 'tabular'"),
    ],
)
def test_a_name_that_is_not_there_is_one_line_before_any_work(capsys, tmp_path, words, line):
    path = tmp_path / "right.yaml"
    path.write_text(EXPERIMENT.replace("trian", "held"))
    stage, *options = words.split()
    asked = [] if stage in ("figure", "table", "tabular") else ["--experiment", path]
    status, printed, text = run(capsys, stage, *asked, *options, "--results", tmp_path / "results")
    assert (status, printed, text.count("\n")) == (1, "", 1)
    assert text.startswith("error: ")
    assert line in text


def test_the_graders_offered_are_those_that_there_are():
    (option,) = (action for action in STAGES["grade"]._actions if "--grader" in action.option_strings)
    assert option.choices == get_args(GraderName)  # importing the settings would make `--help` slow


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (ValueError("first line\n  second line"), "error: first line second line\n"),
        (
            FileNotFoundError(2, "No such file or directory", "a.parquet"),
            "error: No such file or directory: a.parquet\n",
        ),
        (PermissionError(13, "Permission denied", "b"), "error: Permission denied: b\n"),
        (OSError("disk full"), "error: disk full\n"),
    ],
)
def test_what_a_stage_raises_becomes_one_line(capsys, monkeypatch, failure, line):
    def fail(**arguments):
        raise failure

    monkeypatch.setattr(cli, "_stage", lambda module, function: fail)
    assert run(capsys, "audit") == (1, "", line)


def test_a_mistake_in_the_program_keeps_its_traceback(monkeypatch):
    def fail(**arguments):
        raise TypeError("a bug")

    monkeypatch.setattr(cli, "_stage", lambda module, function: fail)
    with pytest.raises(TypeError, match="a bug"):
        cli.main(["audit"])


@pytest.mark.parametrize("status", [0, 1, 75])
def test_a_stage_chooses_its_exit_status(capsys, monkeypatch, status):
    monkeypatch.setattr(cli, "_stage", lambda module, function: lambda **arguments: status)
    assert run(capsys, "audit")[0] == status


@pytest.mark.parametrize("kind", schema.FILES)
def test_schemas_are_printed(capsys, kind):
    assert run(capsys, "schema", kind)[:2] == (0, schema.text(kind))


def test_a_failing_command_prints_no_traceback_and_exits_with_status_1(tmp_path):
    absent = tmp_path / "absent.parquet"
    config = tmp_path / "run.yaml"
    config.write_text("seed: one\n")
    base = [sys.executable, "-m", "entropy_mechanism", "collect-curves", "--metrics", absent, "--source", absent]
    base += ["--train-set", absent]
    outputs = ["--runs", tmp_path / "runs", "--curves", tmp_path / "curves", "--results", tmp_path]
    result = subprocess.run([*base, "--config", config, *outputs], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {config}: ")
    assert len(result.stderr.splitlines()) == 1


def test_help_imports_nothing_heavy():
    program = """
import sys
from entropy_mechanism import cli
try:
    cli.main(["train", "--help"])
except SystemExit:
    print(sorted({"torch", "mlflow", "matplotlib", "transformers", "pandas", "numpy"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
