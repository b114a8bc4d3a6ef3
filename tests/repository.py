"""A copy of the repository for tests that run the workflow."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def copy_repository(target: Path) -> Path:
    """Copy the files that git knows or would add, links as links and without results; returns `target`."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name, follow_symlinks=False)
    return target


@dataclass(frozen=True)
class Workspace:
    """A copy of the repository with its own results."""

    root: Path

    @property
    def results(self) -> Path:
        return self.root / "results"

    def copy(self, root: Path) -> "Workspace":
        """A copy with results, times and links as they are; MLflow's files of artifacts stay where they were."""
        shutil.copytree(self.root, root, symlinks=True)
        return Workspace(root)

    def command(self, *arguments: str) -> list[str]:
        profile = str(self.root / "workflow/profiles/local")
        return [sys.executable, "-m", "snakemake", "--profile", profile, *arguments]

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ENTROPY_MECHANISM")}
        return inherited | {"PYTHONPATH": str(self.root / "src"), "HF_HUB_OFFLINE": "1"}

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run Snakemake; output and errors together in `stdout`."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=570,
        )
        assert not check or done.returncode == 0, done.stdout[-6000:]
        return done

    def planned(self, *arguments: str) -> dict[str, int]:
        """Jobs that a dry run would execute, by rule."""
        lines = self.snakemake("-n", *arguments).stdout.splitlines()
        if any("Nothing to be done" in line for line in lines):
            return {}
        table = lines[lines.index(next(line for line in lines if line.startswith("Job stats:"))) + 3 :]
        jobs = [line.split() for line in table[: table.index("")]]
        return {name: int(count) for name, count in jobs if name != "total"}

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run `entropy-mechanism`."""
        done = subprocess.run(
            [sys.executable, "-m", "entropy_mechanism", *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=570,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done
