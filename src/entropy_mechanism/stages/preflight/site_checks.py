"""What makes a workflow fail wherever it runs: files, disk, downloads, software. Generators of findings."""

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from entropy_mechanism import costs, files, memory
from entropy_mechanism.config import HubModel, HubSet
from entropy_mechanism.plan import Plan
from entropy_mechanism.stages.preflight import places
from entropy_mechanism.stages.preflight.cluster import LATE
from entropy_mechanism.stages.preflight.scene import FILE_SYSTEM, PATIENCE, Finding, Scene, hub_cache

GB = 1e9


def results_folder(scene: Scene) -> Iterator[Finding]:
    """Results can be written, and locked."""
    answer, folder = scene.answers["results"], scene.paths.root
    if isinstance(answer, places.LockError):
        yield Finding(
            "error",
            f"files in {folder} cannot be locked ({answer.strerror}), and without locks two trainings of one run "
            "could meet",
            "put `results` on a file system with flock (Lustre: mounted with -o flock)",
        )
    elif isinstance(answer, OSError):
        cure = "make room or ask for a larger quota, or put `results` elsewhere"
        yield Finding("error", f"nothing can be written to {folder}: {answer.strerror}", cure)
    for name, place in (("results", folder), ("free for downloads", hub_cache())):
        if scene.hangs(name):
            cure = (
                "look whether its file system is alive (`df` hangs too?), or put it elsewhere (`results`, HF_HOME)"
            )
            yield Finding("error", f"{place} does not answer within {PATIENCE:g} s", cure)


def shared(scene: Scene) -> Iterator[Finding]:
    """What the nodes read is not on a disk of this machine."""
    local = [
        f"{name.removeprefix(FILE_SYSTEM)} ({kind})"
        for name, kind in scene.answers.items()
        if name.startswith(FILE_SYSTEM) and kind in places.LOCAL
    ]
    if local:
        yield Finding(
            "warning",
            f"on file systems that other machines mostly do not see: {', '.join(local)}",
            "put them where all nodes look (NFS, Lustre, GPFS, …); HF_HOME moves the hub's cache",
        )


def room(scene: Scene) -> Iterator[Finding]:
    """There is disk for what is still to be made and downloaded."""
    if scene.hangs("results", "free for downloads"):
        return
    stored = sum(_storage(scene.plan, name) for name in scene.plan.runs
                 if not Path(scene.paths.run_manifest(name)).exists())  # fmt: skip
    fetched = sum(2 * shape.parameters for model in scene.downloads if (shape := memory.known_shape(model)))
    cache = hub_cache()
    if files.nearest(cache).stat().st_dev == files.nearest(scene.paths.root).stat().st_dev:
        stored, fetched = stored + fetched, 0
    for amount, name, folder in ((stored, "free", scene.paths.root), (fetched, "free for downloads", cache)):
        available = scene.answers[name]
        if isinstance(available, int) and available < amount:
            yield Finding(
                "error",
                f"{available / GB:,.0f} GB are free at {folder} and about {amount / GB:,.0f} are needed",
                "make room, or put it elsewhere (`results` in config/config.yaml; HF_HOME for downloads); "
                "`entropy-mechanism plan` shows the sums",
            )


def tracking(scene: Scene) -> Iterator[Finding]:
    """The tracking server can be reached."""
    answer = scene.answers.get("tracking")
    if answer is LATE or isinstance(answer, OSError):
        yield Finding(
            "warning",
            f"tracking_uri {scene.site.tracking_uri} cannot be reached ({answer})",
            "nothing is lost: `entropy-mechanism track sync` sends the records later",
        )


def hub(scene: Scene) -> Iterator[Finding]:
    """What is published and not here yet can be downloaded."""
    if scene.hangs("results", "free for downloads"):
        return
    models = [model.id for model in scene.downloads if not _cached(model)]
    data = {name: scene.plan.experiment.data[name] for name in scene.plan.data_sets}
    sets = [
        name
        for name, settings in data.items()
        if isinstance(settings, HubSet) and not settings.folder and not Path(scene.paths.data(name)).exists()
    ]
    if not models and not sets:
        return
    what = " and ".join(
        f"{len(names)} {kind} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for kind, names in (("models", models), ("data sets", sets))
        if names
    )
    answer = scene.answers["hub"]
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    cure = "`snakemake --profile slurm data models` where there is a network and the same HF_HOME"
    if offline or answer is not None:
        why = "HF_HUB_OFFLINE is set" if offline else f"the hub cannot be reached from here ({answer})"
        # Data sets may be in the cache: only reading them tells.
        yield Finding("error" if models else "warning", f"{what} are not here yet and {why}", cure)
    else:
        yield Finding(
            "note", f"{what} will be downloaded where Snakemake runs, before the jobs that need them", cure
        )


def engine(scene: Scene) -> Iterator[Finding]:
    """vLLM is installed where a model answers with it."""
    wanted = [name for name in scene.plan.models if scene.plan.experiment.compute_of(name).engine == "vllm"]
    if wanted and not find_spec("vllm"):
        yield Finding(
            "error",
            f"compute.{wanted[0]} asks for engine vllm and {sys.executable} has no vLLM",
            "`make slurm GPU=1`, then `. .venv-slurm/bin/activate`",
        )


def gpu_memory(scene: Scene) -> Iterator[Finding]:
    """Every run fits into the GPUs that its compute tells of."""
    try:
        memory.check_plan(scene.plan)
    except memory.DoesNotFit as failure:
        yield Finding("error", str(failure))


def _storage(plan: Plan, name: str) -> float:
    """Bytes that a run leaves; tiny models count as nothing."""
    run = plan.run_config(name)
    shape = memory.known_shape(plan.experiment.models[run.model])
    if shape is None:
        return 0.0
    return costs.cost(run, shape, 1, costs.lengths_of(plan, run.model), costs.machine_of(run, "h100")).storage


def _cached(model: HubModel) -> bool:
    """Whether the hub's cache has begun to hold a model."""
    folder = hub_cache() / f"models--{model.id.replace('/', '--')}" / "snapshots"
    return any(folder.glob("*/config.json"))
