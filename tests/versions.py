"""Whether the ranges of pyproject.toml can be installed, at their lowest and newest end: `make versions`.

Resolves each end with pip, without installing, and prints what was chosen; `--test` also installs it into a
temporary environment and runs the unit tests and the smoke experiment there. Exit status 1 when one of them fails.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
DEVELOPMENT = REPOSITORY / "requirements/dev.txt"


def ranges() -> list[Requirement]:
    """The dependencies of the package."""
    return [
        Requirement(line)
        for line in tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    ]


def lowest(requirement: Requirement) -> str:
    """The requirement at the lower end of its range, e.g. `pandas==3.0` for `pandas>=3.0,<4`."""
    (bound,) = [one.version for one in requirement.specifier if one.operator in (">=", "==")]
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}=={bound}"


def resolved(python: str, requirements: list[str]) -> dict[str, str]:
    """Versions that pip would install into an empty environment. Raises CalledProcessError on a conflict."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        options = ["--quiet", "--dry-run", "--ignore-installed", "--report", report.name]
        subprocess.run([python, "-m", "pip", "install", *options, *requirements], check=True)
        chosen = json.loads(Path(report.name).read_text())["install"]
    return {one["metadata"]["name"].lower(): one["metadata"]["version"] for one in chosen}


def tested(requirements: list[str]) -> None:
    """Run unit tests and smoke in a temporary environment. Raises CalledProcessError if one fails."""
    with tempfile.TemporaryDirectory() as folder:
        python = f"{folder}/bin/python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *requirements, "-r", DEVELOPMENT, "-e", REPOSITORY],
            check=True,
        )
        subprocess.run([python, "-m", "pytest", "tests/unit"], cwd=REPOSITORY, check=True)
        smoke = ["--config", "experiment=smoke", f"results={folder}/results"]
        profile = REPOSITORY / "workflow/profiles/local"
        subprocess.run([python, "-m", "snakemake", "--profile", profile, *smoke], cwd=REPOSITORY, check=True)


def main() -> None:
    """Resolve both ends, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("end", nargs="?", choices=("lowest", "newest"), help="by default both")
    parser.add_argument("--test", action="store_true", help="run unit tests and smoke with each")
    arguments = parser.parse_args()
    for end in [arguments.end] if arguments.end else ["lowest", "newest"]:
        requirements = [lowest(one) if end == "lowest" else str(one) for one in ranges()]
        try:
            chosen = resolved(sys.executable, requirements)
            shown = ", ".join(f"{one.name} {chosen[one.name.lower()]}" for one in ranges())
            print(f"{end}: {len(chosen)} packages: {shown}", flush=True)
            if arguments.test:
                tested(requirements)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{end}: {' '.join(map(str, error.cmd[:6]))} … failed with status {error.returncode}")


if __name__ == "__main__":
    main()
