"""Prints how much memory the runs of an experiment need on each rank."""

from pathlib import Path

from entropy_mechanism import memory
from entropy_mechanism.config import HubModel, TinyModel, load_experiment
from entropy_mechanism.hub import Model
from entropy_mechanism.plan import Plan
from entropy_mechanism.shapes import Shape, from_folder


def print_memory(experiment: Path, gpu_gib: float | None) -> int:
    """Print the sums of every model and method; returns 1 when one does not fit into its GPU, else 0.

    `gpu_gib` overrides `compute.gpu_gib`; without either nothing is compared. Runs that differ in data and seed
    alone are shown once. Raises ValueError for a model whose shape is not known here.
    """
    plan = Plan(load_experiment(experiment))
    shown: set[tuple[str, str]] = set()
    misfits = 0
    for name, place in plan.runs.items():
        if (place.model, place.method) in shown:
            continue
        shown.add((place.model, place.method))
        run = plan.run_config(name)
        shape = shape_of(plan.experiment.models[place.model])
        capacity = memory.GIB * (gpu_gib or run.compute.gpu_gib or 0.0) if run.compute.device == "cuda" else 0.0
        print(memory.table(run, shape, capacity), end="\n\n")
        misfits += bool(capacity and memory.misfit(run, shape, capacity))
    return int(misfits > 0)


def shape_of(settings: Model) -> Shape:
    """The shape of a model, without downloading it. Raises ValueError when it is not known here."""
    if isinstance(settings, TinyModel):
        from entropy_mechanism.models.tiny import FEED_FORWARD, build_tokenizer

        vocabulary, inner = len(build_tokenizer(settings.warmup.task)), FEED_FORWARD * settings.width
        heads = (settings.heads, settings.kv_heads)
        return Shape(settings.layers, settings.width, *heads, inner, vocabulary, settings.tied)
    return memory.known_shape(settings) or _cached(settings)


def _cached(settings: HubModel) -> Shape:
    """The shape of a model that the hub's cache holds."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(settings.id, "config.json", revision=settings.revision)
    if not isinstance(path, str):
        raise ValueError(
            f"the shape of {settings.id} is not known before it is downloaded; `snakemake models` fetches it, or "
            "give a local copy as folder"
        )
    return from_folder(Path(path).parent)
