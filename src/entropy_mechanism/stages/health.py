"""Whether a machine is fit for its share of a training: what each node reports, and what is wrong with it."""

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entropy_mechanism import files, memory
from entropy_mechanism.config import RunConfig
from entropy_mechanism.models import manifest
from entropy_mechanism.resources import host_bytes
from entropy_mechanism.shapes import Shape, from_folder
from entropy_mechanism.tracking.provenance import package_version

_PACKAGES = ("torch", "transformers", "accelerate", "vllm")


def report(inputs: Mapping[str, Path], store: Path) -> dict[str, Any]:
    """What this machine has: code, packages, the inputs as it sees them, memory, disk and GPUs.

    `inputs` are files by name, among them `model`, a manifest whose weights are looked for by their sizes.
    """
    return {
        "host": os.uname().nodename,
        "code": files.fingerprint(
            {name: value for name, value in files.sha256_of_tree(_package()).items() if name.endswith(".py")}
        ),
        "packages": {"python": platform.python_version()} | {name: package_version(name) for name in _PACKAGES},
        "inputs": {name: _digest(path) for name, path in inputs.items()},
        "weights": _weights(inputs["model"]),
        "memory": _available_memory(),
        "disk": shutil.disk_usage(files.nearest(store)).free,
        "gpus": _gpus(),
    }


def faults(
    reports: list[dict[str, Any]], run: RunConfig, inputs: Mapping[str, Path], store: Path
) -> list[list[str]]:
    """What is wrong with each node, in words that say what to do; the first report is node 0's."""
    main = reports[0]
    return [_differences(main, other, inputs, store) + _lacks(other, run, inputs, index == 0)
            for index, other in enumerate(reports)]  # fmt: skip


def _differences(
    main: dict[str, Any], other: dict[str, Any], inputs: Mapping[str, Path], store: Path
) -> list[str]:
    found = []
    if not other.get("sees_store", True):
        found.append(
            f"does not see the store of node 0 at {store.absolute()}; results have to be on a file system that "
            "all nodes share"
        )
    if other.get("invalid"):
        found.append(str(other["invalid"]))
    for name, digest in main["inputs"].items():
        if other["inputs"].get(name) != digest:
            found.append(
                f"{inputs[name]} is {other['inputs'].get(name) or 'missing'}, on node 0 {digest or 'missing'}; "
                "it has to be the same file on all nodes"
            )
    lacking = [name for name, size in main["weights"].items() if other["weights"].get(name) != size]
    if lacking and other["inputs"].get("model"):
        found.append(
            f"of the base model's weights, {', '.join(lacking[:3])} {'…' if len(lacking) > 3 else ''} are "
            "missing or of another size; share the folder, or the hub's cache (HF_HOME)"
        )
    if other["code"] != main["code"]:
        found.append("runs other code of this package than node 0; use one checkout or installation for all")
    for name, version in main["packages"].items():
        if other["packages"].get(name) != version:
            found.append(f"has {name} {other['packages'].get(name)}, node 0 has {version}; use one environment")
    return found


def _lacks(machine: dict[str, Any], run: RunConfig, inputs: Mapping[str, Path], main: bool) -> list[str]:
    found = []
    compute, shape = run.compute, _shape(inputs["model"])
    if compute.device == "cuda" and machine["gpus"] is not None:
        if len(machine["gpus"]) < compute.ranks_per_node:
            found.append(
                f"has {len(machine['gpus'])} GPUs for {compute.ranks_per_node} ranks; ask for more (Slurm: --gres "
                "or --gpus-per-node), or change compute.ranks and compute.nodes"
            )
        elif shape:
            for index, (total, free) in enumerate(machine["gpus"]):
                needed = memory.estimate(run, shape, total).highest.needed
                if free < needed <= total:
                    found.append(
                        f"GPU {index} has {free / memory.GIB:.0f} of {total / memory.GIB:.0f} GiB free and "
                        f"{needed / memory.GIB:.0f} are needed; end what else runs there (nvidia-smi)"
                    )
    if shape and compute.device == "cuda":
        needed = host_bytes(run, shape, main)
        if machine["memory"] is not None and machine["memory"] < needed:
            found.append(
                f"has {machine['memory'] / memory.GIB:.0f} GiB of main memory left and {needed / memory.GIB:.0f} "
                "are needed; ask for more (Slurm: --mem)"
            )
        needed = (12 * memory.trained(run) + 4) * shape.parameters
        if main and machine["disk"] < needed:
            found.append(
                f"{machine['disk'] / memory.GIB:.0f} GiB are left for results, and one checkpoint and the final "
                f"weights take {needed / memory.GIB:.0f}; make room, or put `results` elsewhere"
            )
    return found


def _shape(model: Path) -> Shape | None:
    try:
        return from_folder(manifest.read(model).weights)
    except (OSError, ValueError, KeyError):
        return None


def _package() -> Path:
    return Path(__file__).parents[1]


def _digest(path: Path) -> str | None:
    try:
        return files.sha256(path)[:16]
    except OSError:
        return None


def _weights(model: Path) -> dict[str, int]:
    """Sizes of the files that a manifest lists, those that are there."""
    try:
        found = manifest.read(model)
    except (OSError, ValueError):
        return {}
    sizes = {}
    for name in found.digests:
        if (found.weights / name).is_file():
            sizes[name] = (found.weights / name).stat().st_size
    return sizes


def _available_memory() -> float | None:
    """Bytes that processes here can take: what the machine has left, or this job's cgroup allows in all."""
    limits = _cgroup_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits += [int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable")]
    except OSError:
        pass
    return min(limits, default=None)


def _cgroup_limits(own: Path, root: Path) -> list[float]:
    """Limits of memory of the cgroup that the file `own` names, and of all above it, in version 2 or 1; bytes."""
    try:
        entries = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    limits = []
    for _, controllers, name in entries:
        if controllers not in ("", "memory"):
            continue
        top, file = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        place = top / name.strip("/")
        for folder in (place, *place.parents):
            with contextlib.suppress(OSError, ValueError):  # "max", or no such file: no limit here
                limits.append(float(int((folder / file).read_text())))
            if folder == top:
                break
    return limits


def _gpus() -> list[tuple[float, float]] | None:
    """Total and free bytes of each GPU that this process may use; None when the driver cannot be asked."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines()]
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        wanted = [name for name in allowed.split(",") if name]
        if any(name.startswith("MIG") for name in wanted):
            return None
        chosen = [row for row in rows if row[0] in wanted or any(row[1].startswith(name) for name in wanted)]
        # Where Slurm hides the others, the numbers of those that are left begin at 0 again.
        rows = chosen if len(chosen) == len(wanted) else rows
    try:
        return [(float(row[2]) * 2**20, float(row[3]) * 2**20) for row in rows]
    except (ValueError, IndexError):  # MIG writes [N/A]
        return None
