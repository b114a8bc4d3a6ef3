"""One subcommand per stage: parse, call, exit. Stages are imported when they run, so `--help` stays quick."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from entropy_mechanism import __version__, files
from entropy_mechanism.config_errors import ConfigError
from entropy_mechanism.credentials import check_address
from entropy_mechanism.help import EXIT_STATUSES, Formatter, example
from entropy_mechanism.paths import RESULTS_VARIABLE, SHARED_VARIABLE
from entropy_mechanism.rl.errors import PermanentError


def main(argv: list[str] | None = None) -> None:
    """Run one subcommand. Exit status: 0 done, 1 failed, 2 wrong usage, 75 stopped in time and to be resumed."""
    arguments = vars(parser().parse_args(argv))
    call: Callable[..., object] = arguments.pop("call")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        status = call(**arguments)
    except Exception as error:
        if full := files.full_disk(error):
            place = getattr(full, "filename", None) or arguments.get("results") or "."
            sys.exit(f"error: {files.no_space(Path(place))}")
        if not isinstance(error, ConfigError | PermanentError | ValueError | OSError | MemoryError):
            raise
        message = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else error
        sys.exit(f"error: {' '.join(str(message).split()) or type(error).__name__}")
    sys.exit(status if isinstance(status, int) else 0)


def _stage(module: str, function: str) -> Callable[..., object]:
    """A function of a stage module, imported when called."""
    return lambda **arguments: getattr(import_module(f"entropy_mechanism.{module}"), function)(**arguments)


def parser() -> argparse.ArgumentParser:
    """The parser of all stages."""
    parser = argparse.ArgumentParser(
        prog="entropy-mechanism",
        description="The stages of the workflow; each reads files, writes files and runs on its own.",
        epilog=EXIT_STATUSES,
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = _Commands(parser.add_subparsers(metavar="STAGE", required=True))
    for describe in (_inputs, _training, _evaluation, _analyses, _results, _forecasts, _records, _helpers):
        describe(commands)
    return parser


class _Commands:
    """Adds subcommands to a parser."""

    def __init__(self, commands: Any) -> None:  # argparse has no public name for what adds them
        self.groups = {"": commands}

    def group(self, name: str, text: str) -> None:
        """Add a stage that has subcommands of its own; theirs are added as `name subcommand`."""
        command = self.groups[""].add_parser(name, help=text, description=text)
        self.groups[name] = command.add_subparsers(metavar="COMMAND", required=True)

    def add(self, name: str, module: str, function: str, text: str, *options: tuple[str, dict[str, Any]]) -> None:
        """Add a stage, a function of a module, whose parameters are the options and `results`."""
        self.tell(name, module, function, text, *options, RESULTS)

    def tell(
        self, words: str, module: str, function: str, text: str, *options: tuple[str, dict[str, Any]]
    ) -> None:
        """Add a command whose parameters are the options alone: most of these look and print."""
        *group, name = words.split()
        command = self.groups["".join(group)].add_parser(
            name, help=text, description=text, formatter_class=Formatter, epilog=example(words)
        )
        for option, settings in options:
            command.add_argument(option, **settings)
        command.set_defaults(call=_stage(module, function))


def _inputs(commands: _Commands) -> None:
    """What runs start from."""
    add = commands.add
    add("prepare", "stages.prepare", "prepare", "make one data set of an experiment",
        EXPERIMENT, _name("--data", "data set"),
        ("--parts", {"type": Path, "nargs": "*", "default": [], "metavar": "FILE",
                     "help": "input: problems of each part of a joined set"}),
        _out("--output", "problems (parquet)"),
        _out("--statistics", "what is in the data set (json)"))  # fmt: skip
    add("decontaminate", "stages.decontaminate", "decontaminate", "find test problems in one training set",
        EXPERIMENT, _in("--train-set", "problems to train on"),
        _list("--tested", "DATA=FILE", "problems of each test set"),
        ("--key", {"required": True, "metavar": "NAME", "help": "name of the training set"}),
        _out("--output", "test problems that it contains (parquet)"),
        _out("--table", "their numbers by test set (csv)"))  # fmt: skip
    add("make-model", "stages.make_model", "make_model", "make one base model of an experiment",
        EXPERIMENT, _name("--model", "model"), _out("--output", "manifest; weights stand beside it"))  # fmt: skip
    add("resolve", "stages.resolve", "resolve", "write the fully resolved configuration of one run",
        EXPERIMENT, _name("--run", "run"), _out("--output", "run.yaml"))  # fmt: skip


def _training(commands: _Commands) -> None:
    """Training."""
    add = commands.add
    add("train", "stages.train", "train", "train one run, or take it from the store; a stopped run goes on",
        _in("--config", "run.yaml"), _in("--model", "manifest of the base model"),
        _in("--train-set", "problems to train on"), _in("--validation", "problems to validate on"),
        _out("--store", "folder of training state"), _out("--metrics", "one row per step (parquet)"),
        _out("--output", "manifest of the final policy"), SHARED, DEADLINE, RETRY, *NODES)  # fmt: skip
    add("train-rank", "stages.train", "train_rank", "one of the processes of a training; started by `train`",
        _in("--config", "run.yaml"), _name("--fingerprint", "run's folder in the store"),
        _in("--model", "manifest of the base model"), _in("--train-set", "problems to train on"),
        _in("--validation", "problems to validate on"), _out("--folder", "the run's folder in the store"),
        DEADLINE)  # fmt: skip


def _evaluation(commands: _Commands) -> None:
    """Responses, grades and scores."""
    add = commands.add
    add("sample", "stages.sample", "sample", "let a policy answer the benchmarks",
        EXPERIMENT, _in("--policy", "manifest of the policy"), _name("--model", "base model"),
        _list("--problems", "BENCHMARK=FILE", "problems of each benchmark"),
        _list("--outputs", "BENCHMARK=FILE", "responses to each benchmark (parquet)"),
        _out("--store", "folder where finished work is kept"), SHARED, KEY)  # fmt: skip
    add("grade", "stages.grade", "grade_samples", "grade responses",
        _in("--samples", "responses"), _in("--problems", "problems"), GRADER, KEY,
        _out("--output", "grades (parquet)"))  # fmt: skip
    add("score", "stages.score", "score", "score a policy from its grades",
        EXPERIMENT, _name("--policy", "policy"), _list("--grades", "BENCHMARK=FILE", "grades of each benchmark"),
        _list("--overlaps", "FILE", "test problems in the policy's training sets (parquet)"),
        _out("--output", "scores (parquet)"))  # fmt: skip
    add("compare", "stages.compare", "compare_policies", "compare a policy with others, problem by problem",
        EXPERIMENT, _name("--policy", "policy"), _list("--grades", "BENCHMARK=FILE", "grades of each benchmark"),
        _list("--references", "POLICY/BENCHMARK=FILE", "grades of the others"),
        _out("--output", "differences (parquet)"))  # fmt: skip


def _analyses(commands: _Commands) -> None:
    """Analyses of runs, and of nothing but formulas."""
    add = commands.add
    add("collect-curves", "stages.collect_curves", "collect_curves", "put a run's identity on its metrics",
        _in("--config", "run.yaml"), _in("--metrics", "metrics of the run"),
        _in("--source", "manifest of the run"), _in("--train-set", "problems it was trained on"),
        _out("--runs", "one row (parquet)"), _out("--curves", "one row per step (parquet)"))  # fmt: skip
    add("fit-law", "stages.analyze", "fit_law", "fit R = -a exp(H) + b to one run, and forecast",
        EXPERIMENT, _name("--run", "run"), _in("--curves", "curves of the run"),
        _list("--outputs", "FILE", "law, forecasts, forecast_points, forms (parquet), told by name"))  # fmt: skip
    add("study", "stages.studies", "study", "analyse the runs of one figure or table together",
        EXPERIMENT, _name("--study", "study"), _name("--item", "figure or table"),
        _list("--frames", "FILE", "analysis files of its runs"),
        _out("--output", "the study (parquet)"))  # fmt: skip
    add("published", "stages.published", "published", "fit, forecast and test the curves that the paper shows",
        EXPERIMENT, _list("--outputs", "FILE", "published_*.parquet, told by their names"))  # fmt: skip
    add("token-covariances", "stages.token_covariances", "token_covariances",
        "compute a run's covariances from its token records",
        _in("--config", "run.yaml"), _in("--metrics", "metrics of the run"),
        _in("--source", "manifest of the run"),
        ("--store", {"type": Path, "required": True, "metavar": "FOLDER",
                     "help": "input: folder of training state, where records stand"}),
        _list("--outputs", "FILE", "token_covariances, covariance_levels (parquet), told by name"))  # fmt: skip
    add("entropy-dynamics", "stages.analyze", "entropy_dynamics", "how one run spends its entropy",
        EXPERIMENT, _name("--run", "run"), _in("--curves", "curves of the run"),
        _in("--token-covariances", "covariances of the run's recorded steps"),
        _in("--covariance-levels", "covariances of tokens, sequences and actions in these steps"),
        _list("--outputs", "FILE",
              "consumption, dynamics, entropy_change, dynamics_summary (parquet), told by name"))  # fmt: skip
    add("tabular", "stages.tabular", "write_tabular", "check the entropy formulas on tabular softmax policies",
        _list("--outputs", "FILE", "parquet files, told by their names"))  # fmt: skip


def _results(commands: _Commands) -> None:
    """What a reader sees."""
    add = commands.add
    add("figure", "stages.figure", "figure", "draw one figure",
        _name("--name", "figure"), _list("--frames", "FILE", "analysis files"),
        _list("--outputs", "FILE", "pdf, png, svg, csv and json"),
        ("--code", {"metavar": "FILE", "help": "Python file of a figure of your own; docs/extending.md"}),
        ("--sha256", {"metavar": "DIGEST", "help": "what that file must have"}))  # fmt: skip
    add("table", "stages.figure", "table", "write one table",
        _name("--name", "table"), _list("--frames", "FILE", "analysis and score files"),
        _list("--outputs", "FILE", "csv, md and json"))  # fmt: skip
    add("report", "stages.report", "report", "put claims, figures, tables and runs into one page",
        EXPERIMENT, TRACKING,
        ("--compare-with", {"type": _experiment, "default": None, "metavar": "EXPERIMENT",
                            "help": "another experiment with the same results folder, shown beside it"}),
        _out("--output", "<results>/<name>/report/index.html, beside its inputs"))  # fmt: skip


def _forecasts(commands: _Commands) -> None:
    """What would run, and what that needs."""
    tell = commands.tell
    tell("memory", "stages.memory", "print_memory", "how much memory each run needs on a rank, with the sums",
         EXPERIMENT, ("--gpu-gib", {"type": float, "default": None, "metavar": "GIB",
                                    "help": "memory of a GPU; by default compute.gpu_gib"}))  # fmt: skip
    tell("plan", "stages.plan", "print_plan", "what an experiment would run, and what that is expected to cost",
         EXPERIMENT, ("--gpus", {"type": int, "default": None, "metavar": "N",
                                 "help": "GPUs, or cores, of the wall time; by default those of the largest run"}),
         ("--gpu", {"choices": ("a100", "h100"), "default": "h100", "help": "kind of GPU"}),
         ("--calibrate", {"type": Path, "default": None, "metavar": "FOLDER",
                          "help": "folder of a measured run, results/<experiment>/runs/<run>"}),
         ("--markdown", {"action": "store_true", "help": "print the table of docs/reproducing.md"}))  # fmt: skip


def _records(commands: _Commands) -> None:
    """Records of what was executed."""
    add = commands.add
    add("lineage", "stages.lineage", "lineage", "everything that a file or an execution was made from",
        ("asked", {"nargs": "+", "metavar": "FILE", "help": "a recorded file, or a record, run, or MLflow run"}),
        ("--descendants", {"action": "store_true", "help": "everything that was made from it instead"}),
        ("--json", {"action": "store_true", "help": "for programs"}))  # fmt: skip
    add("restore", "stages.restore", "restore", "rebuild a results folder from what MLflow holds",
        ("--tracking-uri", {"required": True, "metavar": "URI", "help": "MLflow store, sqlite:///… or http://…"}),
        ("--experiment", {"default": "entropy-mechanism", "metavar": "NAME", "help": "MLflow experiment"}),
        ("--artifacts", {"type": Path, "default": None, "metavar": "FOLDER",
                         "help": "where the folder of artifacts (mlartifacts) is now, if it was moved"}),
        ("--workflow-experiment", {"nargs": "+", "default": [], "metavar": "NAME",
                                   "help": "only these experiments, such as tiny; all by default"}))  # fmt: skip
    add("audit", "stages.audit", "audit", "compare the files on disk with what was recorded")
    commands.group("track", "send records to MLflow")
    add("track sync", "tracking.follow", "track_sync", "send every record that MLflow does not have yet",
        TRACKING, ("--resend", {"action": "store_true", "help": "forget what was sent"}))  # fmt: skip
    add("track follow", "tracking.follow", "track_follow", "send records to MLflow while a workflow runs",
        INVOCATION, ("--parent-pid", {"type": int, "required": True, "help": "process of the workflow"}),
        TRACKING)  # fmt: skip
    add("track finish", "tracking.follow", "track_finish", "note how a workflow ended and send what is left",
        INVOCATION, ("--status", {"required": True, "help": "FINISHED, FAILED or KILLED"}), TRACKING)  # fmt: skip


def _helpers(commands: _Commands) -> None:
    """Commands that are no stages: checks, documentation, editors and shells."""
    tell = commands.tell
    tell("preflight", "stages.preflight", "preflight",
         "look for what would make the workflow hang or fail on a Slurm cluster",
         ("--experiment", EXPERIMENT[1] | {"required": False, "help": "by default that of config/config.yaml"}),
         ("--config", {"nargs": "+", "default": [], "metavar": "KEY=VALUE", "help": "as of `snakemake --config`"}),
         ("--profile", {"action": "append", "metavar": "PROFILE",
                        "help": "as of `snakemake --profile`; by default slurm"}))  # fmt: skip
    tell("render-prompts", "stages.render_prompts", "print_prompts",
         "print an example of every prompt style and data set, for docs/data.md")  # fmt: skip
    tell("schema", "schema", "print_schema", "print the JSON schema of a configuration file, for editors",
         ("kind", {"nargs": "?", "default": "experiment", "choices": ("experiment", "site"),
                   "help": "which file"}))  # fmt: skip
    tell("completion", "cli", "print_completion", "print what makes a shell complete stages and options",
         ("shell", {"choices": ("bash", "zsh", "tcsh"), "help": "which shell"}))  # fmt: skip


def print_completion(shell: str) -> None:
    """Print what makes a shell complete stages and options."""
    import shtab

    print(shtab.complete(parser(), shell=shell))


def _in(option: str, text: str) -> tuple[str, dict]:
    return option, {"type": Path, "required": True, "metavar": "FILE", "help": f"input: {text}"}


def _out(option: str, text: str) -> tuple[str, dict]:
    return option, {"type": Path, "required": True, "metavar": "PATH", "help": f"output: {text}"}


def _name(option: str, kind: str) -> tuple[str, dict]:
    return option, {"required": True, "metavar": "NAME", "help": f"name of the {kind}"}


def _list(option: str, metavar: str, text: str) -> tuple[str, dict]:
    return option, {"nargs": "+", "required": True, "metavar": metavar, "help": text}


def _address(text: str) -> str:
    try:
        return check_address(text)
    except ValueError as error:  # argparse would show the address itself
        raise argparse.ArgumentTypeError(str(error)) from None


def _experiment(text: str) -> Path:
    """The file of an experiment, which is named as for Snakemake."""
    if Path(text).is_file() or text.endswith((".yaml", ".yml")):  # reading the file says what is wrong with it
        return Path(text)
    from entropy_mechanism.config import experiment_path

    try:
        return experiment_path(text, key="--experiment")
    except ConfigError as error:  # argparse names the option itself
        raise argparse.ArgumentTypeError(str(error).removeprefix("--experiment: ")) from None


EXPERIMENT: tuple[str, dict] = (
    "--experiment",
    {
        "type": _experiment,
        "required": True,
        "metavar": "EXPERIMENT",
        "help": "input: a name from config/experiments, such as tiny, or an experiment file",
    },
)
RESULTS = (
    "--results",
    {
        "type": Path,
        "default": Path(os.environ.get(RESULTS_VARIABLE, "results")),
        "help": f"folder of results and records; ${RESULTS_VARIABLE} when set",
    },
)
DEADLINE = (
    "--deadline-seconds",
    {
        "type": float,
        "metavar": "SECONDS",
        "help": "write a checkpoint and exit with status 75 before the process has run so long",
    },
)
RETRY = (
    "--retry",
    {"action": "store_true", "help": "try again although an earlier attempt failed for good (failed.json)"},
)
NODES = (
    ("--nodes", {"type": int, "metavar": "N", "help": "launchers of this run, one a node; default: srun's or 1"}),
    ("--node-rank", {"type": int, "metavar": "K", "help": "which of them this is, 0 to N - 1; default: srun's"}),
    ("--main-address", {"metavar": "HOST", "help": "name or address of node 0; default: srun's first node"}),
    ("--port", {"type": int, "metavar": "P", "help": "of node 0, where launchers meet, their ranks at P + 1; "
                                                     "default: one derived from job and run"}),
)  # fmt: skip
GRADER = (
    "--grader",
    {"choices": ("strict", "paper"), "default": "strict", "help": "how answers are compared; see docs/grading.md"},
)
KEY = ("--key", {"required": True, "help": "name of the job in the record"})
INVOCATION = ("--invocation", {"required": True, "help": "identity of the run of the workflow"})
TRACKING = (
    "--tracking-uri",
    {
        "type": _address,
        "metavar": "ADDRESS",
        "help": "MLflow store, without a password (docs/tracking.md); by default SQLite in the results folder",
    },
)
SHARED = (
    "--shared-store",
    {
        "type": Path,
        "default": os.environ.get(SHARED_VARIABLE) or None,
        "metavar": "FOLDER",
        "help": f"where finished work is taken from and put for others (docs/hpc.md); ${SHARED_VARIABLE} when set",
    },
)
