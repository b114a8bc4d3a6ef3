"""What a job asks of a cluster: nodes, GPUs, cores, main memory and time, from where its model trains."""

import math
from dataclasses import dataclass

from entropy_mechanism.config import Compute, RunConfig
from entropy_mechanism.memory import GIB, frozen, trained, width
from entropy_mechanism.shapes import Shape

PROCESS = 3 * GIB
"""Main memory of a rank beside what it computes with: torch, CUDA, libraries, the rollout's tokens."""
SLACK = GIB
"""What a job asks for beyond its sums, for the launcher and the job's own shell and Snakemake."""
CORES_PER_GPU = 8
"""Cores for a rank with a GPU: its own process, and its share of those that grade."""
CORES_PER_RANK = 1
"""On CPUs, where a rank computes on one thread."""
MINUTES = {"cuda": 1440, "cpu": 240}
"""Time limit of a job that trains; it stops before and is submitted again."""


@dataclass(frozen=True)
class Resources:
    """What one job asks for; per node where there are several."""

    nodes: int
    gres: str | None
    """GPUs of a node as Slurm names them, such as `gpu:a100:8`."""
    cores: int
    mem_mb: int
    minutes: int


def launcher(nodes: int, cores: int, gres: str | None) -> str:
    """What starts one launcher of a training on each node; nothing where there is one node."""
    if nodes == 1:
        return ""
    gpus = f" --gres={gres}" if gres else ""
    tasks = f"--nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={cores}"
    # Launchers end together by themselves; where a site's srun kills the others, status 75 becomes 143.
    return f"srun {tasks}{gpus} --kill-on-bad-exit=0 "


def training(run: RunConfig, shape: Shape | None, gpu_type: str | None = None) -> Resources:
    """What the training of a run asks for; without a known shape, main memory by its processes alone."""
    return _resources(
        run.compute,
        run.compute.nodes,
        run.compute.ranks_per_node,
        gpu_type,
        host_bytes(run, shape, True) if shape else 0,
    )


def sampling(compute: Compute, shape: Shape | None, gpu_type: str | None = None) -> Resources:
    """What one policy asks for to answer the benchmarks: a process, and a GPU for each part of its weights."""
    ranks = compute.tensor_parallel
    copies = 2 if compute.device == "cpu" else 1  # on CPUs weights stay, and sampling puts copies in order
    host = 4.0 * shape.parameters * copies + PROCESS * ranks if shape else 0
    return _resources(compute, 1, ranks, gpu_type, host)


def host_bytes(run: RunConfig, shape: Shape, main: bool) -> float:
    """Main memory that a node with GPUs needs, bytes; `main` is the one that writes checkpoints.

    Sums: docs/hpc.md.
    """
    compute, weights = run.compute, 4.0 * shape.parameters
    # One rank gathers weights and moments for a checkpoint, which is more than it held while it read them.
    peak = 3 * weights * trained(run) if main else 0.0
    resident = 0.0
    if compute.sharding == "full" and compute.ranks > 1:
        if compute.engine == "transformers":  # its whole copy passes through main memory on every rank
            peak = max(peak, weights * (compute.ranks_per_node + main))
        if compute.offload == "cpu":
            resident = weights * (4 * trained(run) + len(frozen(run))) / compute.nodes
    else:
        peak = max(peak, weights * compute.ranks_per_node)
    if compute.engine == "vllm":  # one copy asleep for each engine, in the compute type
        resident += width(run) * shape.parameters * compute.ranks_per_node / compute.tensor_parallel
    return peak + resident + PROCESS * compute.ranks_per_node


def _resources(compute: Compute, nodes: int, ranks: int, gpu_type: str | None, host: float) -> Resources:
    gpu = compute.device == "cuda"
    gres = ":".join(part for part in ("gpu", gpu_type, str(ranks)) if part) if gpu else None
    cores = ranks * (CORES_PER_GPU if gpu else CORES_PER_RANK)
    memory = math.ceil((max(host, PROCESS * ranks) + SLACK) / 2**20)
    return Resources(nodes, gres, cores, memory, MINUTES["cuda" if gpu else "cpu"])
