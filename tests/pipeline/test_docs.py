"""Every command of the documentation, executed as it stands there by a reader who has run the smoke experiment."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from repository import REPOSITORY, Workspace

PAGES = [
    *("README.md", "CONTRIBUTING.md", "config/README.md", "examples/README.md"),
    *sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")),
]
BLOCK = re.compile(r"^(?P<fence>`{3,})(?P<kind>\w*)[^\n]*\n(?P<content>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
KINDS = {"console", "text", "yaml", "python", "jsonl", "snakemake"}
"""`console` are commands; everything else is a file, or what something looks like."""
COMMAND = re.compile(
    r"(\$ |\. \.venv|(snakemake|entropy-mechanism|make|pytest|pip|mlflow|git|export|docker|apptainer|python) )"
)
"""What a line of another kind of block does not begin with."""
FOLLOWED = {"docs/extending.md": "tests/pipeline/test_extending.py"}
"""Pages whose blocks build on one another, with the test that follows them from top to bottom."""
HERE = {"results/tiny/": "results/smoke/"}
"""`smoke` stands in for `tiny`: config/config.yaml names it, so that commands without an experiment mean it."""


@dataclass(frozen=True)
class Instead:
    """What is executed in the place of a command that a page shows."""

    run: str | None
    """None where nothing can be."""
    why: str
    """Why not the command itself: what a reader has to replace, or what this machine has not."""
    by: str = ""
    """What executes it as it stands: a test, or `FILE: LINE`."""


LONG = "takes minutes"
IMAGE = Instead(
    None,
    "an image of 10 GB",
    "tests/pipeline/test_code.py::"
    "test_the_image_is_made_of_the_requirements_and_has_the_python_of_the_conda_environments",
)
SERVER = (
    "a server of one's own",
    "tests/pipeline/test_tracking_server.py::"
    "test_a_password_from_the_environment_opens_the_server_and_is_written_nowhere",
)
PLAN = "entropy-mechanism plan --experiment config/experiments"
RESTORE = "entropy-mechanism restore --tracking-uri"
INSTEAD = {
    "README.md": {
        "make test": Instead("make --dry-run test", LONG, ".ci/run: make test"),
        "mlflow ui --backend-store-uri sqlite:///results/mlflow.db": Instead(
            "mlflow ui --backend-store-uri sqlite:///results/mlflow.db --workers 1 --port {port}",
            "serves until it is stopped, here on a port that is free",
        ),
        "snakemake -R fit_law": Instead(
            "snakemake -n -R fit_law",
            LONG,
            "tests/pipeline/test_reruns.py::test_forcing_the_law_refits_it_and_redraws_what_shows_it",
        ),
        "snakemake --config experiment=tiny-full": Instead(
            "snakemake -n --config experiment=tiny-full", "takes most of an hour"
        ),
        "snakemake --config experiment=my.yaml": Instead(
            "snakemake -n --config experiment=my.yaml",
            LONG,
            "tests/pipeline/test_extending.py::test_own_objective_and_estimator_train",
        ),
    },
    "CONTRIBUTING.md": {
        "make test": Instead("make --dry-run test", LONG, ".ci/run: make test"),
        "pytest tests/unit": Instead("pytest tests/unit/test_advantages.py", LONG, ".ci/run: make test"),
        "ruff check . && ruff format --check . && snakefmt --check Snakefile rules && mypy": Instead(
            "ruff check . && ruff format --check . && snakefmt --check Snakefile rules",
            "mypy takes a minute without its cache",
            "tests/pipeline/test_project.py::test_types_are_right",
        ),
        "make test-vllm": Instead("make --dry-run test-vllm", LONG, ".ci/run: make test-vllm"),
        "make test-slurm": Instead(
            "make --dry-run test-slurm",
            "needs Slurm",
            '.ci/run: make test-slurm ARGS="--jobs 60"',
        ),
        **{
            f"make versions{option}": Instead(f"make --dry-run versions{option}", "asks an index of packages")
            for option in ("", " ARGS=--test")
        },
        "make coverage": Instead("make --dry-run coverage", LONG),
    },
    "examples/README.md": {
        "snakemake --config experiment=examples/covariance_weighted/covariance_weighted.yaml": Instead(
            "snakemake -n --config experiment=examples/covariance_weighted/covariance_weighted.yaml",
            LONG,
            "tests/pipeline/test_extending.py::test_the_example_runs_at_smoke_scale",
        ),
    },
    "docs/hpc.md": {
        **{
            f"entropy-mechanism train … --nodes 2 --node-rank {rank} --main-address gpu01": Instead(
                None,
                "two shells on two nodes",
                "tests/pipeline/test_several_nodes.py::test_two_nodes_of_one_rank_train_like_one_node_of_two",
            )
            for rank in (0, 1)
        },
        "make vllm": Instead("make --dry-run vllm", "installs 3 GB", ".ci/run: make test-vllm"),
        ".venv-vllm/bin/snakemake --profile workflow/profiles/local --config experiment=my.yaml": Instead(
            ".venv/bin/snakemake -n --profile workflow/profiles/local --config experiment=my.yaml",
            "the environment of `make vllm`",
            "tests/vllm_cpu/test_learning.py::test_a_policy_learns",
        ),
        "make slurm GPU=1": Instead("make --dry-run slurm GPU=1", "installs 8 GB for GPUs"),
        "entropy-mechanism preflight --config experiment=paper": Instead(
            "entropy-mechanism preflight --config experiment=paper || [ $? = 1 ]",
            "here is no cluster, which it says",
            "tests/slurm/test_preflight_on_slurm.py::test_a_cluster_that_can_run_the_experiment_passes",
        ),
        "snakemake --profile slurm data models --config experiment=paper": Instead(
            "snakemake -n data models --config experiment=paper", "no Slurm, and downloads of 80 GB"
        ),
        "snakemake --profile slurm -n -p --config experiment=paper": Instead(
            "snakemake -n -p --config experiment=paper", "no Slurm"
        ),
        "snakemake --profile slurm --config experiment=paper": Instead(
            "snakemake -n --config experiment=paper",
            "no Slurm and no GPUs",
            "tests/slurm/test_real_slurm.py::test_every_stage_of_smoke_is_a_job_of_slurm_or_part_of_one",
        ),
        "read -rs MLFLOW_TRACKING_PASSWORD && export MLFLOW_TRACKING_PASSWORD": Instead(
            "read -rs MLFLOW_TRACKING_PASSWORD <<< secret && export MLFLOW_TRACKING_PASSWORD", "a password"
        ),
        "pip install -r requirements/runtime.txt -r requirements/gpu.txt -e .": Instead(
            None,
            "installs 8 GB",
            "tests/pipeline/test_code.py::test_the_conda_environments_have_the_pins_of_the_requirements",
        ),
        "docker build --file envs/Dockerfile --tag entropy-mechanism-gpu"
        ' --build-arg REQUIREMENTS="runtime gpu" .': IMAGE,
        "apptainer build /shared/entropy-mechanism.sif docker-daemon:entropy-mechanism-gpu:latest": IMAGE,
        'snakemake --profile slurm --software-deployment-method apptainer --apptainer-args="--nv --bind /shared" '
        "--config experiment=paper container=/shared/entropy-mechanism.sif": Instead(
            None,
            "no Slurm, no apptainer",
            "tests/pipeline/test_container.py::"
            "test_a_job_runs_in_the_image_with_the_images_python_and_the_checkouts_package",
        ),
    },
    "docs/performance.md": {
        **{
            f"make bench{topics}": Instead(
                f"make --dry-run bench{topics}", "takes most of half an hour, and TRL to compare with"
            )
            for topics in ("", ' ARGS="rl_step logprobs"', " ARGS=--quick")
        },
        ".venv-bench/bin/python benchmarks/page.py": Instead(
            ".venv/bin/python benchmarks/page.py", "the environment of `make bench`"
        ),
    },
    "docs/report.md": {
        "snakemake --config experiment=tiny": Instead("snakemake -n --config experiment=tiny", LONG),
        "snakemake --config experiment=my.yaml compare_with=tiny": Instead(
            "snakemake -n --config experiment=my.yaml compare_with=smoke",
            "smoke is what was run here",
            "tests/pipeline/test_two_experiments.py::test_the_report_shows_both_and_follows_the_other",
        ),
    },
    "docs/reproducing.md": {
        "snakemake --config experiment=tiny-full": Instead(
            "snakemake -n --config experiment=tiny-full", "takes most of an hour"
        ),
        "snakemake fig07 table1 --config experiment=paper": Instead(
            "snakemake -n fig07 table1 --config experiment=paper", "needs GPUs"
        ),
        f"{PLAN}/paper.yaml --calibrate results/paper/runs/<run>": Instead(
            f"{PLAN}/smoke.yaml --calibrate results/smoke/runs/nano--train--grpo--s1",
            "a run of one's own",
        ),
    },
    "docs/tracking.md": {
        "entropy-mechanism track sync --tracking-uri https://mlflow.example.org": Instead(
            "entropy-mechanism track sync --tracking-uri sqlite:///elsewhere.db", *SERVER
        ),
        "snakemake --config tracking_uri=https://mlflow.example.org": Instead(
            "snakemake -n --config tracking_uri=https://mlflow.example.org", *SERVER
        ),
        f"{RESTORE} sqlite:////data/results/mlflow.db --results results": Instead(
            f"{RESTORE} sqlite:///$PWD/results/mlflow.db --results restored", "a file of one's own"
        ),
        f"{RESTORE} http://tracking:5000 --results results --workflow-experiment tiny": Instead(
            f"{RESTORE} sqlite:///$PWD/results/mlflow.db --results restored --workflow-experiment smoke",
            "a server of one's own",
            "tests/pipeline/test_lineage_and_restore.py::"
            "test_results_come_back_from_a_server_that_keeps_the_artifacts",
        ),
    },
}


@dataclass(frozen=True)
class Block:
    """Commands of a page that follow one another in one shell."""

    page: str
    line: int
    commands: tuple[str, ...]


def commands(content):
    """The commands of a block, each on one line and without its comment."""
    lines = re.sub(r" *\\\n *", " ", content).splitlines()
    bare = (re.sub(r"(^|\s+)#\s.*$", "", line).rstrip() for line in lines)
    return tuple(command for command in bare if command)


def blocks(page):
    return [
        (match["kind"], text[: match.start()].count("\n") + 1, match["content"])
        for text in [(REPOSITORY / page).read_text()]
        for match in BLOCK.finditer(text)
    ]


BLOCKS = [
    Block(page, line, commands(content))
    for page in PAGES
    for kind, line, content in blocks(page)
    if kind == "console" and page not in FOLLOWED
]


class Reader:
    """Who has what the pages tell to have: this repository, an environment, and a finished experiment."""

    def __init__(self, root: Path, finished: Workspace) -> None:
        """Copy a finished run of the smoke experiment, and make of its environment what `make` makes."""
        finished.copy(root)
        self.root, environment, bin = root, root / ".venv", root / ".venv/bin"
        config = root / "config/config.yaml"
        config.write_text(
            re.sub("^experiment: tiny$", "experiment: smoke", config.read_text(), flags=re.MULTILINE)
        )
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
        libraries = subprocess.run(
            [bin / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        Path(libraries, "base.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})")
        for script in Path(sys.executable).parent.iterdir():
            if not (bin / script.name).exists():
                (bin / script.name).symlink_to(script)
        line = re.search(r"echo '(export SNAKEMAKE_PROFILE=.*)' >>", (root / "Makefile").read_text())[1]
        profile = str(root / "workflow/profiles/local")
        with (bin / "activate").open("a") as activate:
            activate.write(line.replace("$$", "$").replace("$(PROFILE)", profile) + "\n")
        (environment / ".ready").touch()
        (root / ".venv-slurm").symlink_to(".venv")
        shutil.copy(root / "config/experiments/smoke.yaml", root / "my.yaml")
        unwanted = ("ENTROPY_MECHANISM", "SNAKEMAKE", "PYTEST", "MAKE", "ARGS", "VIRTUAL_ENV")
        self.environment = {key: text for key, text in os.environ.items() if not key.startswith(unwanted)}
        self.environment |= {"PYTHONPATH": str(root / "src"), "HF_HUB_OFFLINE": "1", "USER": "reader"}

    def do(self, command: str, environment: dict[str, str]) -> dict[str, str]:
        """Execute a command in bash; returns the environment that it leaves to the next."""
        after = self.root / "environment"
        done = subprocess.run(
            ["bash", "-c", f"{command}\nstatus=$?\nenv -0 > {shlex.quote(str(after))}\nexit $status"],
            cwd=self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-4000:]}"
        assert "Traceback" not in done.stdout, f"{command}\n{done.stdout[-4000:]}"
        return dict(entry.split("=", 1) for entry in after.read_text().split("\0") if entry)

    def serve(self, command: str, environment: dict[str, str]) -> None:
        """Start what serves until it is stopped; it has to show the experiment of this project's records."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        log = self.root / "server.log"
        quietly = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with log.open("w") as output:
            server = subprocess.Popen(
                ["bash", "-c", command.format(port=port)],
                cwd=self.root,
                env=environment | quietly,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        page = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name?experiment_name=entropy-mechanism"
        until = time.monotonic() + 120
        try:
            while True:
                try:
                    with urllib.request.urlopen(page, timeout=5) as answer:
                        assert json.load(answer)["experiment"]["lifecycle_stage"] == "active"
                        return
                except OSError:
                    assert server.poll() is None, log.read_text()[-4000:]
                    assert time.monotonic() < until, log.read_text()[-4000:]
                    time.sleep(0.1)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


@pytest.fixture(scope="module")
def reader(smoke, tmp_path_factory):
    return Reader(tmp_path_factory.mktemp("reader") / "repository", smoke)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_the_commands_of_a_page_run_as_they_stand_there(reader, block):
    environment = reader.environment
    if not any(command.startswith((". ", "make ")) for command in block.commands):
        environment = reader.do(". .venv/bin/activate", environment)
    for command in block.commands:
        instead = INSTEAD.get(block.page, {}).get(command)
        run = instead.run if instead else command
        if run is None:
            continue
        for there, here in HERE.items():
            run = run.replace(there, here)
        if "{port}" in run:
            reader.serve(run, environment)
        else:
            environment = reader.do(run, environment)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_say_by_their_fence_whether_they_are_commands(page):
    for kind, line, content in blocks(page):
        assert kind in KINDS, f"{page}:{line}: ```{kind} is none of {sorted(KINDS)}"
        if kind != "console":
            found = [text for text in content.splitlines() if COMMAND.match(text)]
            assert not found, f"{page}:{line}: {found[0]} is in a block of {kind}; commands belong into ```console"


def test_the_drawing_of_the_architecture_has_every_rule_that_makes_files():
    page = (REPOSITORY / "docs/architecture.md").read_text()
    drawn = page.partition("## The data's way through the project")[2].partition("## Rooms")[0]
    rules = "".join(path.read_text() for path in (REPOSITORY / "rules").glob("*.smk"))
    made = re.findall(r"^rule (\w+):\n(?:    .*\n|\n)*?    output:", rules, re.MULTILINE)
    assert {"train", "compare", "tabular", "fetch_model", "report"} <= set(made)
    assert [name for name in made if not re.search(rf"\b{name}\b", drawn)] == []


def test_what_the_page_on_extending_names_of_the_package_is_there():
    table = (REPOSITORY / "docs/extending.md").read_text().partition("## What needs a change of the package")[2]
    named = re.findall(r"`([\w/]+(?:/|\.py))`", table)
    assert len(named) > 10
    assert [path for path in named if not (REPOSITORY / "src/entropy_mechanism" / path).exists()] == ["rules/"]
    assert (REPOSITORY / "rules").is_dir()


def test_every_command_that_is_replaced_is_shown_by_its_page():
    shown = {(block.page, command) for block in BLOCKS for command in block.commands}
    assert {(page, command) for page, entries in INSTEAD.items() for command in entries} <= shown


@pytest.mark.parametrize(
    "entry", [entry for entries in INSTEAD.values() for entry in entries.values()], ids=lambda entry: entry.by
)
def test_what_is_not_executed_here_is_executed_where_the_table_says(entry):
    assert entry.why
    assert entry.run or entry.by, f"nothing executes what is left out because of {entry.why}"
    if "::" in entry.by:
        path, name = entry.by.split("::")
        assert re.search(rf"^def {name}\(", (REPOSITORY / path).read_text(), re.MULTILINE), entry.by
    elif entry.by:
        path, line = entry.by.split(": ")
        assert line in (REPOSITORY / path).read_text().splitlines(), entry.by


@pytest.mark.parametrize("page", FOLLOWED)
def test_a_page_that_is_followed_elsewhere_is_read_there(page):
    assert f'"{page}"' in (REPOSITORY / FOLLOWED[page]).read_text()
