"""A language model as the training step uses it: on one rank, or spread over several with DDP or FSDP2."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from entropy_mechanism.rl.batch import Sequences
from entropy_mechanism.rl.logprobs import TokenStatistics, token_statistics
from entropy_mechanism.rl.ranks import Ranks

T = TypeVar("T")
_NOTHING = Sequences([[0]], [[]])
"""Read by a rank that has no micro-batch left: all ranks must go through the collective operations of a pass."""
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Policy:
    """The weights, float32, and how they are read: in `dtype`, by all ranks together."""

    def __init__(
        self, model: PreTrainedModel, dtype: str = "float32", ranks: Ranks | None = None, sharded: bool = False
    ) -> None:
        """Move `model` to the rank's device and, with several ranks, wrap it; `sharded` changes it in place.

        A sharded model is moved a layer at a time, so that it need not fit into a GPU as a whole; the main rank
        sends its weights to those that have an empty one, so that they need not fit into the others' memory.

        Raises ValueError for weights in half precision: steps as small as RL takes are lost in their rounding.
        """
        half = {parameter.dtype for parameter in model.parameters()} & {torch.bfloat16, torch.float16}
        if half:
            raise ValueError(
                f"weights are {half.pop()}; training needs float32 weights, whatever the compute dtype"
            )
        self.ranks = ranks or Ranks()
        sharded = self.ranks.size > 1 and sharded
        self.model = model.eval()  # dropout would make pi_old and pi two functions
        if not sharded:
            self.model.to(self.ranks.device)
        self.dtype = getattr(torch, dtype)
        self._reader: torch.nn.Module = _Reader(self.model)
        if sharded:
            kept = None if dtype == "float32" else self.dtype
            precision = MixedPrecisionPolicy(param_dtype=kept, reduce_dtype=torch.float32)
            pinned = self.ranks.device.type == "cuda"
            place = CPUOffloadPolicy(pin_memory=pinned) if self.ranks.offload else OffloadPolicy()
            weights: dict[str, Any] = dict(model.state_dict()) if self.ranks.main else {}
            for part in (*_layers(self.model), self._reader):
                fully_shard(part, mp_policy=precision, offload_policy=place)
            if self.ranks.any(any(parameter.is_meta for parameter in model.parameters())):
                self._receive(weights)
        elif self.ranks.size > 1 and any(parameter.requires_grad for parameter in model.parameters()):
            self._reader = DistributedDataParallel(self._reader, forward_sync_buffers=False)

    def _receive(self, weights: dict[str, Any]) -> None:
        """Share out the main rank's whole `weights`, one at a time, also to ranks whose model is empty."""
        rest = torch.device("cpu") if self.ranks.offload else self.ranks.device

        def filled(tensor: torch.Tensor) -> torch.Tensor:
            return torch.empty_like(tensor, device=rest) if tensor.is_meta else tensor

        self.model._apply(filled)
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(self.model, weights, options=options)

    def read(
        self,
        sequences: Sequences,
        temperature: float = 1.0,
        chunk: int = 1024,
        entropy_gradient: bool = False,
        last: bool = True,
        whole_n: torch.Tensor | None = None,
    ) -> TokenStatistics:
        """`token_statistics` of this rank's `sequences`, which may be none; all ranks must call it together.

        `last` says that this is the last pass before the optimiser's step, when ranks exchange their gradients.
        """

        def statistics(
            model: PreTrainedModel, part: Sequences
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
            found = token_statistics(model, part, temperature, chunk, entropy_gradient, whole_n=whole_n)
            return found.logprob_N, found.entropy_N, found.logprobs_nV

        return TokenStatistics(*self.apply(statistics, sequences, last))

    def apply(
        self, function: Callable[[PreTrainedModel, Sequences], T], sequences: Sequences, last: bool = True
    ) -> T:
        """`function` of the model and this rank's `sequences`; `sequences` and `last` as in `read`.

        While it runs, weights are whole on every rank, so all that reads them belongs into it.
        """
        with contextlib.ExitStack() as stack:
            if self.dtype != torch.float32:
                stack.enter_context(torch.autocast(self.ranks.device.type, self.dtype))
            if isinstance(self._reader, DistributedDataParallel) and not last:
                stack.enter_context(self._reader.no_sync())
            return self._reader(function, sequences if len(sequences) else _NOTHING)

    @torch.no_grad()
    def measure(
        self, sequences: Sequences, temperature: float, chunk: int, micro_batch_tokens: int
    ) -> TokenStatistics:
        """Statistics of all `sequences` in their order, without gradient, on the CPU and on every rank.

        Micro-batches of at most `micro_batch_tokens` padded tokens are shared out among the ranks.
        """
        found_2N = torch.zeros(2, len(sequences.targets_N))
        for rows in self.ranks.share(sequences.balanced_micro_batches(micro_batch_tokens), []):
            part = self.read(sequences[rows], temperature, chunk)
            found_2N[:, sequences.token_index(rows)] = torch.stack([part.logprob_N, part.entropy_N]).float().cpu()
        self.reshard()
        return TokenStatistics(*self.ranks.sum(found_2N))

    def reshard(self) -> None:
        """Give back other ranks' weights, which a pass without gradient leaves whole; a backward pass does not."""
        if isinstance(self._reader, FSDPModule):
            self._reader.reshard()

    @torch.no_grad()
    def head(self) -> torch.Tensor:
        """A copy of the whole output head, [V, D], on every rank's CPU; all ranks must call it together."""
        self.reshard()
        return self._whole(self.model.get_output_embeddings().weight).to("cpu", copy=True)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of this rank's share of the loss; DDP and FSDP2 average over ranks, thus the factor."""
        (loss * self.ranks.size).backward()

    def clip_gradient(self, limit: float) -> torch.Tensor:
        """Scale the gradient down to norm `limit` if it is longer; returns the norm it had."""
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        return self._whole(norm)

    @torch.no_grad()
    def copy_weights(self, other: "Policy") -> None:
        """Take over the weights of a policy that is spread in the same way."""
        self.reshard()
        for own, theirs in zip(self.model.parameters(), other.model.parameters(), strict=True):
            own.copy_(theirs)

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and whole tensor of every weight, one at a time; all ranks must go through them together."""
        for name, tensor in self.model.state_dict().items():
            yield name, self._whole(tensor)

    def state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Whole weights and optimiser state, by the weights' names, on the main rank's CPU; empty on others.

        Before the first update there is no optimiser state, and asking torch for it would make one: a step of zero
        gradient, which counts in Adam's correction of its means.
        """
        optimizer_state = (
            get_optimizer_state_dict(self.model, optimizer, options=_WHOLE) if optimizer.state else {}
        )
        weights = {name: tensor.cpu() for name, tensor in self.weights() if self.ranks.main}
        return {"model": weights, "optimizer": optimizer_state} if self.ranks.main else {}

    def load_state(self, state: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
        """Take over what `state` gave, on any number of ranks; only the main one's `state` is looked at."""
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=self.ranks.size > 1)
        set_model_state_dict(self.model, state.get("model", {}), options=options)
        if self.ranks.any(bool(state.get("optimizer"))):
            set_optimizer_state_dict(self.model, optimizer, state.get("optimizer", {}), options=options)

    def _whole(self, tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        # Offloaded shards are put together where the ranks' fast connection is.
        shards = tensor.to(self.ranks.device)
        assert isinstance(shards, DTensor)
        return shards.full_tensor()


def recompute_activations(model: PreTrainedModel) -> PreTrainedModel:
    """Make every layer keep its input alone for the backward pass and compute the rest again; returns `model`.

    Gradients are the same to the bit. transformers' own switch acts in training mode only, where dropout is on.
    """
    for layer in _layers(model):
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    return model


def _layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    """The blocks of a causal language model."""
    blocks = model.get_submodule("model.layers")
    assert isinstance(blocks, torch.nn.ModuleList), f"{type(model).__name__} keeps its layers elsewhere"
    return blocks


class _Reader(torch.nn.Module):
    """What DDP and FSDP2 wrap: the output head must be read within the forward pass, where its weight is whole."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[PreTrainedModel, Sequences], T], sequences: Sequences) -> T:
        return function(self.model, sequences)
