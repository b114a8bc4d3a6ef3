"""The processes (ranks) that train one policy together.

All ranks go through the same steps with the same rollout, the same selections and the same metrics. Shared out are
only the costly parts, sampling, grading and reading micro-batches, and what the ranks find is put together in an
order that does not depend on their number: nothing else of the training step needs to know how many there are.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from entropy_mechanism.config import Compute
from entropy_mechanism.rl.errors import DeviceError, PermanentError
from entropy_mechanism.rollouts.engine import Completion, Engine, Sampling

T = TypeVar("T")
PATIENCE = timedelta(hours=2)
"""What ranks wait for one that is busy alone, as with the checkpoint of a large policy (NCCL: ten minutes)."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; by default it is alone, on the CPU."""

    index: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    offload: bool = False
    """Whether shares of weights, gradients and optimiser state rest in main memory; see `Compute.offload`."""

    @property
    def main(self) -> bool:
        """Whether this rank writes files and talks to people."""
        return self.index == 0

    def share(self, items: Sequence[T], filler: T) -> list[T]:
        """Every `size`-th item, from this rank's own; `filler` at the end so that all ranks have equally many."""
        mine = list(items[self.index :: self.size])
        return mine + [filler] * (-(-len(items) // self.size) - len(mine))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over ranks, on every rank, on the device of `values`."""
        if self.size == 1:
            return values
        total = values.to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(values.device)

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        """`sum` for named numbers; every rank has the same names in the same order."""
        total = self.sum(torch.tensor(list(values.values()), dtype=torch.float64))
        return dict(zip(values, total.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on some rank."""
        return bool(self.sum(torch.tensor(float(flag))))

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, on every rank; any picklable value."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def spread(self, function: Callable[..., Sequence[T]], *columns: Sequence[Any], together: int = 1) -> list[T]:
        """`function` of columns of equal length, one result per row: each rank does a run of consecutive rows.

        `together` neighbouring ranks do the same rows, where `function` needs all of them, and have equal results.
        """
        rows, team, teams = len(columns[0]), self.index // together, self.size // together
        mine = slice(team * rows // teams, (team + 1) * rows // teams)
        results = self.gather(list(function(*(column[mine] for column in columns))))
        return [result for part in results[::together] for result in part]


@contextlib.contextmanager
def join(compute: Compute) -> Iterator[Ranks]:
    """Meet the other ranks, which the environment names (RANK, WORLD_SIZE, MASTER_ADDR …), and take a device.

    Raises `DeviceError` when this machine has no such device, or too few; `PermanentError` when the launcher
    started another number of ranks.
    """
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "no GPU: `compute` asks for device cuda, and torch finds none on this machine; run the job where "
            "there is one, or set device: cpu for this model in the experiment's `compute`"
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if compute.device == "cuda" and here > torch.cuda.device_count():
        raise DeviceError(
            f"{here} ranks were started on this machine, which has {torch.cuda.device_count()} GPUs; each needs "
            "one of its own"
        )
    if compute.ranks == 1:
        yield Ranks(device=torch.device(compute.device or "cpu"))
        return
    from accelerate import PartialState
    from accelerate.utils import patch_environment

    offload = compute.offload == "cpu"
    # Shares in main memory need a way between ranks of their own beside NCCL; accelerate adds it when so asked.
    wishes = {"ACCELERATE_USE_FSDP": "true", "FSDP_OFFLOAD_PARAMS": "true"} if offload else {}
    with patch_environment(**wishes):
        state = PartialState(cpu=compute.device != "cuda", timeout=PATIENCE)
    if state.num_processes != compute.ranks:
        raise PermanentError(
            f"{state.num_processes} ranks were started and `compute` asks for {compute.ranks}; start this run "
            "with `entropy-mechanism train`, which starts its ranks"
        )
    yield Ranks(state.process_index, state.num_processes, torch.device(state.device), offload)
    state.destroy_process_group()


@dataclass(frozen=True)
class SharedEngine:
    """An engine on every rank; each answers its share of the prompts, and all ranks get all completions."""

    engine: Engine
    ranks: Ranks
    together: int = 1
    """Neighbouring ranks whose engines are one, with a part of the weights on each: its tensor-parallel size."""

    def generate(
        self, prompts: Sequence[list[int]], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        """See `Engine.generate`."""
        return self.ranks.spread(
            lambda mine, draws: self.engine.generate(mine, sampling, draws), prompts, seeds, together=self.together
        )

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """See `Engine.load_weights`."""
        self.engine.load_weights(weights)

    def sleep(self) -> None:
        """See `Engine.sleep`."""
        self.engine.sleep()
