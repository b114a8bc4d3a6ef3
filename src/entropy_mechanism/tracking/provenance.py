"""Where a stage ran: packages, host, git revision, and whether a recorded process still lives."""

import contextlib
import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "mlflow", "snakemake", "numpy", "pandas")
_PACKAGE = Path(__file__).parents[1]


def package_version(package: str) -> str | None:
    """The installed version of a package, None where it is not installed."""
    from importlib import metadata  # 10 ms that only a running stage needs

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """Interpreter, package versions, host and Slurm job; never the environment variables themselves."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": os.uname().nodename,
        "cpus": os.cpu_count(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "packages": {package: package_version(package) for package in _PACKAGES},
    }


def git_state() -> dict[str, Any]:
    """Revision of the checkout this package runs from, and whether it differs from it; None outside git.

    `changes` tells two states of one revision apart: sixteen digits of the SHA-256 of all differences of tracked
    files and of the files in the package that git does not know. None where nothing differs.
    """
    try:
        lines = _git("status", "--porcelain=v2", "--branch").decode().splitlines()
        head = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), "(initial)")
        dirty = any(not line.startswith("#") for line in lines)
        changes = _changes() if dirty and head != "(initial)" else None
    except (OSError, subprocess.SubprocessError):
        return {"revision": None, "dirty": None, "changes": None}
    return {"revision": None if head == "(initial)" else head, "dirty": dirty, "changes": changes}


def _changes() -> str:
    digest = hashlib.sha256(_git("diff", "HEAD", "--binary", "--no-ext-diff"))
    for name in sorted(filter(None, _git("ls-files", "--others", "--exclude-standard", "-z").split(b"\0"))):
        digest.update(name + b"\0" + hashlib.sha256((_PACKAGE / os.fsdecode(name)).read_bytes()).digest())
    return digest.hexdigest()[:16]


def _git(*arguments: str) -> bytes:
    return subprocess.run(
        ["git", "-C", str(_PACKAGE), *arguments],
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # stages run side by side: never take index.lock
        capture_output=True,
        timeout=10,
        check=True,
    ).stdout


def birth(pid: int) -> str | None:
    """When process `pid` started, in a form only good for comparing; None when it is gone or a zombie."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    if Path("/proc/self/stat").exists():
        return None
    listing = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    state, _, started = listing.stdout.strip().partition(" ")
    return started.strip() or None if not state.startswith("Z") else None


def process_identity(pid: int | None = None) -> dict[str, Any]:
    """Host, pid and start time of a process, this one by default."""
    pid = os.getpid() if pid is None else pid
    return {"host": os.uname().nodename, "pid": pid, "birth": birth(pid)}


def vanished(process: Mapping[str, Any]) -> bool:
    """Whether a process of this host is gone; False when it lives or belongs to another host."""
    return process["host"] == os.uname().nodename and (
        process["birth"] is None or birth(process["pid"]) != process["birth"]
    )
