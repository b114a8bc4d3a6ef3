"""A copy of the repository for tests that run the workflow."""

import shutil
import subprocess
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
