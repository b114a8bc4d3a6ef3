"""Where a model is trained: device, ranks and what saves memory. Nothing here changes the science."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from entropy_mechanism.config_errors import KeyedError
from entropy_mechanism.settings import Count, Positive, Strict


class Compute(Strict):
    """Where a model is trained and answers. Results are the same up to rounding, except for `engine`."""

    device: Literal["cpu", "cuda"] | None = None
    """By default the CPU for tiny models and a GPU for published ones."""
    ranks: Count = 1
    """Processes that train one policy together; with `cuda`, each has a GPU of its own."""
    nodes: Count = 1
    """Machines that the ranks are shared out to evenly; a divisor of `ranks`. Each starts its own; docs/hpc.md."""
    sharding: Literal["none", "full"] = "none"
    """Among several ranks: `none` gives each all weights (DDP), `full` a share of every layer (FSDP2)."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What generates responses, in rollouts and evaluation; the same policy, but other draws for the same seed."""
    tensor_parallel: Count = 1
    """Neighbouring ranks that share one vLLM engine, each with a part of the weights; divides a node's ranks."""
    vllm_memory: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of a GPU's memory for vLLM's weights and cache, of the main memory on the CPU. By default 0.4 of a
    GPU, and a cache of 1 GiB on the CPU."""
    offload: Literal["none", "cpu"] = "none"
    """Where a rank's share of weights, gradients and optimiser state rests: `cpu` keeps it in main memory and runs
    the optimiser there (FSDP2's CPU offload; sharding `full` on GPUs). Slow, for when nothing else fits."""
    activation_checkpointing: bool = False
    """Keep only each layer's input for the backward pass and compute the rest again: a third more computation."""
    attention: Literal["sdpa", "flash_attention_2", "eager"] | None = None
    """Attention of the trainer; by default transformers' choice, sdpa. flash_attention_2 packs sequences without
    padding; it needs the package flash-attn, a GPU and training.dtype bfloat16."""
    gpu_gib: Positive | None = None
    """Memory of each GPU, GiB. When given, a run that needs more is refused before any job; docs/hpc.md."""

    @property
    def ranks_per_node(self) -> int:
        """Processes on each machine."""
        return self.ranks // self.nodes

    @property
    def summary(self) -> str:
        """Where and how, in a line for a person."""
        where = f"{self.ranks} {'rank' if self.ranks == 1 else 'ranks'} on {self.device or 'its usual device'}"
        if self.nodes > 1:
            where = f"{self.nodes} nodes x {self.ranks_per_node} = {where}"
        engine = f"engine {self.engine}"
        if self.engine == "vllm":
            memory = "default" if self.vllm_memory is None else f"{self.vllm_memory:g}"
            engine += f" (tensor parallel {self.tensor_parallel}, memory {memory})"
        return f"{where}, sharding {self.sharding}, {engine}"

    @model_validator(mode="after")
    def _nodes(self) -> "Compute":
        if self.ranks % self.nodes:
            raise KeyedError(
                "nodes",
                f"found {self.nodes}; allowed: divisors of ranks ({self.ranks}), since all have equally many",
            )
        if self.ranks % self.tensor_parallel == 0 and self.ranks_per_node % self.tensor_parallel:
            raise KeyedError(
                "tensor_parallel",
                f"found {self.tensor_parallel}; allowed: divisors of the {self.ranks_per_node} ranks of a node, "
                "since an engine does not reach beyond its node",
            )
        return self

    @model_validator(mode="after")
    def _engine(self) -> "Compute":
        if self.ranks % self.tensor_parallel:
            raise KeyedError(
                "tensor_parallel",
                f"found {self.tensor_parallel}; allowed: divisors of ranks ({self.ranks}), since neighbouring "
                "ranks share an engine",
            )
        if self.engine != "vllm":
            for key, usual in (("tensor_parallel", 1), ("vllm_memory", None)):
                if getattr(self, key) != usual:
                    raise KeyedError(key, f"found {getattr(self, key)}; it is for engine vllm, not {self.engine}")
        return self

    @model_validator(mode="after")
    def _memory(self) -> "Compute":
        if self.offload == "cpu" and (self.sharding != "full" or self.ranks == 1):
            raise KeyedError(
                "offload", "found 'cpu'; allowed: with sharding 'full' and several ranks, since it is FSDP2's"
            )
        if self.attention == "flash_attention_2" and self.device == "cpu":
            raise KeyedError("attention", "found 'flash_attention_2'; allowed on device cpu: sdpa, eager")
        return self
