"""How much memory a training needs on each rank, computed before anything is loaded. docs/hpc.md states the sums.

Light: torch is not imported, and no file is read but a local model's config.json.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from entropy_mechanism.config import HubModel, KlCov, RunConfig
from entropy_mechanism.hub import Model
from entropy_mechanism.plan import Plan
from entropy_mechanism.shapes import PUBLISHED, Shape, from_folder

GIB = 2**30
PROMPT_TOKENS = 1024
"""Longest prompt that is reckoned with; prompts are known only when the data is there."""
FRAGMENTATION = 1.1
"""What an allocator reserves relative to what is in use."""
RUNTIME = 2 * GIB
"""CUDA context, libraries, communication buffers, and what vLLM keeps while it sleeps."""
VLLM_SHARE = 0.4
"""Share of a GPU's memory that vLLM takes where `vllm_memory` is not given; the trainer needs the rest."""
MAX_ROWS = 2048
"""Responses that the transformers engine generates at once."""


class DoesNotFit(MemoryError):
    """A training needs more memory than a rank's GPU has."""


@dataclass(frozen=True)
class Item:
    """A part of a rank's memory."""

    name: str
    size: float
    """Bytes."""
    sum: str
    """The arithmetic, in words and numbers."""


@dataclass(frozen=True)
class Phase:
    """What lies on a rank's device at one moment of a training step."""

    name: str
    items: tuple[Item, ...]
    reserved: float = 0.0
    """Bytes that vLLM takes for itself, on top."""

    @property
    def size(self) -> float:
        """Bytes of tensors, as `torch.cuda.max_memory_allocated` counts them, and what vLLM takes."""
        return sum(item.size for item in self.items) + self.reserved

    @property
    def needed(self) -> float:
        """Bytes that a GPU must have."""
        return FRAGMENTATION * (self.size - self.reserved) + self.reserved + RUNTIME


@dataclass(frozen=True)
class Estimate:
    """A rank's memory in the phases of a training step."""

    phases: tuple[Phase, ...]

    @property
    def highest(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.needed)


def estimate(run: RunConfig, shape: Shape, capacity: float = 0.0) -> Estimate:
    """Memory of a run's training on one rank, whose GPU has `capacity` bytes (of which vLLM takes a share)."""
    resident = tuple(_resident(run, shape))
    gathered = _gathered(run, shape)
    reading = (*_read(run, shape), *_full_kl(run, shape))
    ends = [Item("gradients of embedding and head", *_outer_gradients(run, shape))] if _sharded(run) else []
    update = Phase("update", (*resident, *gathered, *(reading if _total(reading) > _total(ends) else ends)))
    rollout = Phase("rollout", (*resident, *_engine(run, shape)), _reserved(run, capacity))
    return Estimate((update, rollout))


def check(run: RunConfig, shape: Shape, capacity: float) -> None:
    """Raise `DoesNotFit`, with the largest parts and what can be changed, when a rank's GPU is too small."""
    if capacity and (failure := misfit(run, shape, capacity)):
        raise DoesNotFit(failure)


def misfit(run: RunConfig, shape: Shape, capacity: float) -> str | None:
    """Why a run does not fit into GPUs of `capacity` bytes, or None when it does."""
    highest = estimate(run, shape, capacity).highest
    if highest.needed > capacity:
        parts = sorted(highest.items, key=lambda item: -item.size)[:3]
        largest = [f"{item.name} {_gib(item.size)}" for item in parts]
        if highest.reserved:
            largest.insert(0, f"vLLM's share {_gib(highest.reserved)}")
        return (
            f"{run.run}: its {highest.name} needs {_gib(highest.needed)} GiB on each of {run.compute.ranks} ranks "
            f"and a GPU has {_gib(capacity)}: {', '.join(largest)} …; {_advice(run, highest)}; "
            "`entropy-mechanism memory` shows the sums"
        )
    if run.compute.engine != "vllm":
        return None
    weights, one = _vllm_weights(run, shape), _vllm_cache(run, shape) * _longest(run)
    if weights + one > _reserved(run, capacity):
        return (
            f"{run.run}: vLLM's share of a GPU is {_gib(_reserved(run, capacity))} GiB, and its part of the "
            f"weights needs {_gib(weights)}, the cache of one sequence of {_longest(run)} tokens {_gib(one)}; "
            "raise compute.tensor_parallel or compute.vllm_memory"
        )
    return None


def trained(run: RunConfig) -> int:
    """Models that a run trains: its policy, and with PRIME a reward model of the same shape."""
    return 2 if run.advantage.estimator == "prime" else 1


def frozen(run: RunConfig) -> list[str]:
    """Copies of the weights that a run keeps beside the models it trains."""
    used = {
        "reference": run.regularisation.reference_kl != 0,
        "PRIME's reference": run.advantage.estimator == "prime",
        "weights that sampled": isinstance(run.objective, KlCov) and run.objective.penalty == "full",
    }
    return [name for name in used if used[name]]


def width(run: RunConfig) -> int:
    """Bytes of a number in the compute type."""
    return 4 if run.training.dtype == "float32" else 2


def known_shape(settings: Model) -> Shape | None:
    """The shape of a published model before it is downloaded: of a local copy, or of one of the paper's models."""
    if not isinstance(settings, HubModel):
        return None
    if settings.folder is None:
        return PUBLISHED.get(settings.id)
    folder = Path(settings.folder).expanduser()
    return from_folder(folder) if (folder / "config.json").is_file() else None


def check_plan(plan: Plan) -> None:
    """Raise `DoesNotFit` for the first run that is larger than the GPUs its `compute.gpu_gib` tells of.

    Models whose shape is not known are passed over; their training looks again, before anything is loaded.
    """
    for name in plan.runs:
        run = plan.run_config(name)
        shape = known_shape(plan.experiment.models[run.model])
        if run.compute.device == "cuda" and shape:
            check(run, shape, (run.compute.gpu_gib or 0.0) * GIB)


def cache_tokens(run: RunConfig, shape: Shape, capacity: float) -> float:
    """Tokens in vLLM's cache on a GPU of `capacity` bytes; the ranks of an engine hold parts of the same."""
    return (_reserved(run, capacity) - _vllm_weights(run, shape)) / _vllm_cache(run, shape)


def table(run: RunConfig, shape: Shape, capacity: float = 0.0) -> str:
    """The sums of a run, a line per part, and whether it fits into a GPU of `capacity` bytes."""
    compute = run.compute
    where = f"{compute.ranks} x {compute.device}, sharding {compute.sharding}, {run.training.dtype}"
    lines = [f"{run.run}: {shape.parameters / 1e9:.2f} G parameters, {where}, engine {compute.engine}"]
    found = estimate(run, shape, capacity)
    for phase in found.phases:
        lines.append(f"  {phase.name}")
        lines += [f"    {_gib(item.size):>9} GiB  {item.name}: {item.sum}" for item in phase.items if item.size]
        if phase.reserved:
            share = run.compute.vllm_memory or VLLM_SHARE
            tokens = int(cache_tokens(run, shape, capacity))
            sums = f"{share:g} of a GPU: weights {_gib(_vllm_weights(run, shape))}, cache of {tokens:,} tokens"
            lines.append(f"    {_gib(phase.reserved):>9} GiB  vLLM: {sums}")
        extra = f"{FRAGMENTATION:g} x tensors + {_gib(RUNTIME)} GiB CUDA"
        lines.append(f"    {_gib(phase.size):>9} GiB  together; with {extra}: {_gib(phase.needed)} GiB")
    if capacity:
        failure = misfit(run, shape, capacity)
        lines.append(f"  {'does not fit' if failure else 'fits'} into {_gib(capacity)} GiB")
        lines += [f"  {failure}"] if failure else []
    return "\n".join(lines)


# --- parts ------------------------------------------------------------------------------------------------


def _resident(run: RunConfig, shape: Shape) -> Iterator[Item]:
    """What stays through a run: weights, gradients and moments of trained models, weights of frozen ones."""
    if run.compute.offload == "cpu":
        return
    count, share = shape.parameters, _share(run)
    billions = f"{count / 1e9:.2f} G" + (f" / {share}" if share > 1 else "")
    models = trained(run)
    times = f" x {models} (policy, reward model)" if models > 1 else ""
    yield Item("weights", 4 * models * count / share, f"4 B x {billions}{times}")
    yield Item("gradients", 4 * models * count / share, f"4 B x {billions}{times}")
    yield Item("Adam's moments", 8 * models * count / share, f"8 B x {billions}{times}")
    if run.compute.ranks > 1 and not _sharded(run):
        yield Item("DDP's buckets", 4 * models * count, f"4 B x {billions}{times}")
    for name in frozen(run):
        yield Item(name, 4 * count / share, f"4 B x {billions}")


def _gathered(run: RunConfig, shape: Shape) -> list[Item]:
    """Weights in the compute type while the policy is read."""
    size, layer, outer = width(run), shape.layer_parameters, shape.outer_parameters
    if _sharded(run):
        return [
            Item("gathered embedding and head", size * outer, f"{size} B x {outer / 1e9:.3f} G"),
            # This layer, the next one and the buffer it arrives in; this layer's gradient and its float32 sum.
            Item(
                "gathered layers and their gradients",
                (3 * size + size + 4) * layer,
                f"(4 x {size} B + 4 B) x {layer / 1e9:.3f} G",
            ),
        ]
    if size == 4:
        return []
    return [Item("weights for autocast", 2 * shape.layers * layer, f"2 B x {shape.layers * layer / 1e9:.2f} G")]


def _read(run: RunConfig, shape: Shape) -> list[Item]:
    """Activations of a micro-batch at the start of its backward pass, and what the pass needs besides."""
    tokens, kept = _tokens(run), _kept_by_layer(run, shape)
    stream = _stream(run) * shape.width
    if run.compute.activation_checkpointing:
        activations = Item(
            "activations",
            tokens * (stream * shape.layers + kept),
            f"{tokens:,} tokens x ({shape.layers} layers x {stream:,.0f} B + one layer {kept:,.0f} B)",
        )
    else:
        activations = Item(
            "activations",
            tokens * shape.layers * kept,
            f"{tokens:,} tokens x {shape.layers} layers x {kept:,.0f} B",
        )
    # The last norm, the states that predict and their gradients.
    outer = tokens * (4 + 2 * _stream(run) + 2 * width(run)) * shape.width
    layer = tokens * (3 * width(run) * shape.feed_forward + 8 * shape.width)
    head, sums = _head(run, shape)
    largest = Item("output head", head, sums)
    if layer > head:
        largest = Item("backward pass of a layer", layer, f"{tokens:,} tokens x {layer / tokens:,.0f} B")
    return [
        activations,
        Item("last hidden states", outer, f"{tokens:,} tokens x {outer / tokens:,.0f} B"),
        largest,
    ]


def _kept_by_layer(run: RunConfig, shape: Shape) -> float:
    """Bytes per token that a block keeps for its backward pass.

    Two norms (input in float32, normalised, output), queries, keys, values and output of attention with its log
    sum, and four tensors of the gated MLP (gate, up, activated gate, their product).
    """
    size, stream = width(run), _stream(run)
    norms = 2 * (4 + stream + size) * shape.width
    keys = shape.query_width if run.compute.device == "cpu" else shape.kv_width  # repeated on the CPU
    attention = size * (2 * shape.query_width + 2 * keys) + 4 * shape.heads
    if run.compute.attention == "eager":  # the scores' softmax in float32, and rounded to half precision
        attention += (4 + (size if size < 4 else 0)) * shape.heads * _longest(run)
    return norms + attention + 4 * size * shape.feed_forward


def _head(run: RunConfig, shape: Shape) -> tuple[float, str]:
    """Two chunks of logits and the head's gradient in float32, with one more chunk for an entropy's gradient."""
    rows = min(run.training.logprob_chunk, _tokens(run))
    half = width(run) == 2
    chunks = 3 if run.regularisation.entropy else 2
    gradients = (2 if half else 1) + (1 if shape.tied else 0)  # the sum, a half-precision product, the embedding's
    size = 4 * chunks * rows * shape.vocabulary + 4 * gradients * shape.head_parameters
    weights = f"{shape.head_parameters / 1e9:.3f} G"
    sums = f"{chunks} x 4 B x {rows:,} x {shape.vocabulary:,} + {gradients} x 4 B x {weights}"
    if half:
        size, sums = size + 2 * shape.head_parameters, f"{sums} + 2 B x {weights}"
    return size, sums


def _outer_gradients(run: RunConfig, shape: Shape) -> tuple[float, str]:
    """Gradients of embedding and head before the ranks add them up: in the compute type, and in float32."""
    size, outer = width(run), shape.outer_parameters
    return (size + 4) * outer, f"({size} B + 4 B) x {outer / 1e9:.3f} G"


def _full_kl(run: RunConfig, shape: Shape) -> list[Item]:
    """Distributions of KL-Cov's selected tokens under both policies, and their gradients."""
    if not (isinstance(run.objective, KlCov) and run.objective.penalty == "full"):
        return []
    rows = round(_tokens(run) * run.objective.fraction)
    return [Item("distributions of the full KL", 16 * rows * shape.vocabulary, f"16 B x {rows:,} tokens x V")]


def _engine(run: RunConfig, shape: Shape) -> list[Item]:
    """The engine's own copy of the weights and its cache, when all responses reach their greatest length."""
    if run.compute.engine == "vllm":
        size = 8 * shape.head_parameters
        return [Item("the largest weight on its way", size, f"2 x 4 B x {shape.head_parameters / 1e9:.3f} G")]
    items = []
    if run.compute.sharding == "full":
        items.append(Item("engine's weights", 4 * shape.parameters, f"4 B x {shape.parameters / 1e9:.2f} G"))
    half = width(run) == 2
    if half:
        items += _gathered(run.model_copy(update={"compute": run.compute.model_copy(update={"ranks": 1})}), shape)
    elif run.compute.device == "cpu":
        count = shape.layers * shape.layer_parameters + shape.head_parameters
        items.append(Item("weights in oneDNN's order", 4 * count, f"4 B x {count / 1e9:.2f} G"))
    prompts = -(-run.training.prompts // run.compute.ranks)
    rows = min(MAX_ROWS // run.training.samples or 1, prompts) * run.training.samples
    entry = shape.layers * shape.kv_width * (6 if half else 8)  # autocast leaves keys in float32
    sums = f"{rows:,} responses x {_longest(run):,} tokens x {entry:,} B"
    return [
        *items,
        Item("cache", rows * _longest(run) * entry, sums),
        Item("next tokens", 16 * rows * shape.vocabulary, f"4 x 4 B x {rows:,} x {shape.vocabulary:,}"),
    ]


def _reserved(run: RunConfig, capacity: float) -> float:
    return capacity * (run.compute.vllm_memory or VLLM_SHARE) if run.compute.engine == "vllm" else 0.0


def _vllm_weights(run: RunConfig, shape: Shape) -> float:
    return width(run) * shape.parameters / run.compute.tensor_parallel


def _vllm_cache(run: RunConfig, shape: Shape) -> float:
    """Bytes of a token in vLLM's cache on one rank; key-value heads are shared out, at least one to each."""
    parts = min(run.compute.tensor_parallel, shape.kv_heads)
    return 2 * width(run) * shape.layers * shape.kv_width / parts


def _advice(run: RunConfig, phase: Phase) -> str:
    compute = run.compute
    if phase.name == "rollout":
        return "lower compute.vllm_memory" if compute.engine == "vllm" else "use compute.engine vllm"
    advice = []
    if not compute.activation_checkpointing:
        advice.append("set compute.activation_checkpointing")
    if run.training.micro_batch_tokens > _longest(run):
        advice.append(f"lower training.micro_batch_tokens (to {_longest(run)} at least)")
    if compute.sharding == "none":
        advice.append("use compute.sharding full")
    advice.append("raise compute.ranks")
    if compute.offload == "none" and _sharded(run):
        advice.append("set compute.offload cpu")
    return ", ".join(advice)


def _sharded(run: RunConfig) -> bool:
    return run.compute.ranks > 1 and run.compute.sharding == "full"


def _share(run: RunConfig) -> int:
    return run.compute.ranks if _sharded(run) else 1


def _stream(run: RunConfig) -> int:
    """Bytes of a number in the sum over layers: float32 under autocast, the compute type under FSDP2."""
    return width(run) if _sharded(run) else 4


def _longest(run: RunConfig) -> int:
    return PROMPT_TOKENS + run.training.max_response


def _tokens(run: RunConfig) -> int:
    """Padded tokens of the largest micro-batch; a sequence that is longer than allowed is read alone."""
    return max(run.training.micro_batch_tokens, _longest(run))


def _total(items: Iterable[Item]) -> float:
    return sum(item.size for item in items)


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}" if size >= GIB / 10 else f"{size / GIB:.4f}"
