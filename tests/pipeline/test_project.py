"""What surrounds the code: licence, citation, versions, continuous integration, types."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
LISTS = sorted((REPOSITORY / "requirements").glob("*.txt"))


def lines(name):
    content = (REPOSITORY / "requirements" / name).read_text().splitlines()
    return [line for line in content if line and not line.startswith("#")]


def pinned(name):
    return {
        requirement.name.lower().replace("_", "-"): str(requirement.specifier).removeprefix("==")
        for requirement in map(Requirement, lines(name))
    }


def test_the_version_is_the_same_wherever_it_stands():
    import entropy_mechanism

    heading = re.search(r"^## (?:Unreleased \((.+)\)|(.+) \(\d{4}-\d\d-\d\d\))$", changelog(), re.MULTILINE)
    assert {CITATION["version"], heading[1] or heading[2], entropy_mechanism.__version__} == {PROJECT["version"]}


def changelog():
    return (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_licence_is_named_alike_and_is_there_in_full():
    text = (REPOSITORY / "LICENSE").read_text()
    assert PROJECT["license"] == CITATION["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert [int(number) for number in re.findall(r"^ {3}(\d)\. ", text, re.MULTILINE)] == list(range(1, 10))


def test_the_citation_names_the_project_and_the_paper():
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= CITATION.keys()
    assert [author["name"] for author in CITATION["authors"]] == [author["name"] for author in PROJECT["authors"]]
    (paper,) = CITATION["references"]
    assert paper["url"] == PROJECT["urls"]["Paper"] == "https://arxiv.org/abs/2505.22617"
    assert len(paper["authors"]) == 17
    assert all(author.keys() == {"family-names", "given-names"} for author in paper["authors"])


def test_continuous_integration_runs_ci_run_and_nothing_else():
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert [command for command in commands if not command.startswith("git config")] == [".ci/run"]
    assert [step["uses"] for step in job["steps"] if "uses" in step] == ["actions/checkout@v4"]
    assert not any("env" in step for step in job["steps"])
    image = job["container"]["image"]
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert image == f"python:{lowest}-bookworm"
    assert (REPOSITORY / ".ci/run").stat().st_mode & 0o111


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_requirements_are_exact(path):
    for requirement in map(Requirement, lines(path.name)):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement


def test_constraints_have_the_pins_of_the_requirements():
    wanted = pinned("runtime.txt") | pinned("dev.txt")
    constraints = pinned("constraints.txt")
    assert {name: constraints.get(name) for name in wanted} == wanted


def test_pins_and_this_python_lie_within_the_ranges():
    python = SpecifierSet(PROJECT["requires-python"])
    assert ".".join(map(str, sys.version_info[:3])) in python
    assert (
        f"Programming Language :: Python :: {PROJECT['requires-python'].removeprefix('>=')}"
        in PROJECT["classifiers"]
    )
    makefile = (REPOSITORY / "Makefile").read_text()
    assert f"Python {PROJECT['requires-python'].removeprefix('>=')} or newer is needed" in makefile
    lowest = re.search(r'^min_version\("(.+)"\)$', (REPOSITORY / "Snakefile").read_text(), re.MULTILINE)[1]
    (range_,) = [one for one in map(Requirement, PROJECT["dependencies"]) if one.name == "snakemake"]
    assert f">={lowest}" in str(range_.specifier).split(",")


def test_the_ranges_name_what_is_pinned_and_hold_the_pins():
    ranges = {one.name: one for one in map(Requirement, PROJECT["dependencies"])}
    pins = {one.name: one for one in map(Requirement, lines("runtime.txt"))}
    assert ranges.keys() == pins.keys()
    for name, pin in pins.items():
        (version,) = [one.version for one in pin.specifier]
        assert version in ranges[name].specifier
        assert pin.extras == ranges[name].extras
        operators = {one.operator for one in ranges[name].specifier}
        assert operators in ({">=", "<"}, {"=="}), name  # tests/versions.py tries both ends


def test_the_environment_has_the_pins():
    from importlib.metadata import version

    found = {name: version(name) for name in pinned("runtime.txt") | pinned("dev.txt")}
    assert {name: Version(value).public for name, value in found.items()} == pinned("runtime.txt") | pinned(
        "dev.txt"
    )


def test_the_catalog_says_what_the_workflow_has():
    usage = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    deployment = usage["software-stack-deployment"]
    assert deployment["conda"] is True
    assert deployment["report"] is True
    site = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    image = site["container"] is not None  # else the option alone gives jobs no image
    assert (deployment["apptainer"], deployment["apptainer+conda"]) == (image, False)
    rules = "".join(path.read_text() for path in (REPOSITORY / "rules").glob("*.smk"))
    assert rules.count("shell:") == rules.count("    conda:")
    assert (REPOSITORY / "config/README.md").is_file()


def test_the_table_of_site_settings_is_complete():
    from entropy_mechanism.config import Site

    table = re.findall(
        r"^\| `(\w+)` \| .* \| (.*) \|$", (REPOSITORY / "config/README.md").read_text(), re.MULTILINE
    )
    assert [name for name, _ in table] == list(Site.model_fields)
    site = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    assert {name: default.strip("`") for name, default in table} == {
        name: "null" if value is None else str(value) for name, value in site.items()
    }
    experiments = (REPOSITORY / "config/experiments").glob("*.yaml")
    text = (REPOSITORY / "config/README.md").read_text()
    assert all(f"| `{path.stem}` |" in text for path in experiments)


def test_types_are_right():
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_of_the_package_is_type_checked():
    checker = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["mypy"]
    assert not {"exclude", "ignore_errors", "follow_imports"} & checker.keys()
    for entry in checker["overrides"]:
        assert entry.keys() == {"module", "ignore_missing_imports"}
        assert not any(name.startswith("entropy_mechanism") for name in entry["module"])


def test_what_the_type_checker_is_told_to_ignore_says_which_error_and_why():
    for path in (REPOSITORY / "src").rglob("*.py"):
        text = path.read_text()
        assert "# mypy:" not in text, f"{path}: no module is left out"
        told = re.findall(r"# type: *ignore.*", text)
        assert all(re.fullmatch(r"# type: ignore\[[\w-]+\]  # \w.+", line) for line in told), f"{path}: {told}"
