"""Generation with vLLM inside the training process. vLLM is imported when an engine is made, and only then."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from entropy_mechanism.memory import VLLM_SHARE
from entropy_mechanism.rollouts.engine import Completion, EngineError, Sampling

VLLM_VERSION = "0.32.0"
MAX_ROWS = 512
"""Responses generated at once at most."""
CPU_CACHE = 1 << 30
"""Bytes of key-value cache on the CPU where nothing else is asked for."""
_FIXED = {
    # The engine core and, without tensor parallelism, the worker live in this process: weights are handed over as
    # they are, and a seed gives the same draws again.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # The newer runner of GPUs has other interfaces, and the CPU, where the tests run, does not have it.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
}
_USUAL = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # threads bound to cores wait for one another when jobs share these
}


class VllmEngine:
    """Samples with vLLM, colocated: it has its own copy of the weights, on the device that trains."""

    def __init__(
        self,
        model: Path | str,
        vocabulary: int,
        longest: int,
        dtype: str = "float32",
        device: str = "cpu",
        memory: float | None = None,
        tensor_parallel: int = 1,
        ranks: int = 1,
        max_rows: int = MAX_ROWS,
    ) -> None:
        """Start with the weights in folder `model`.

        `vocabulary` is the tokenizer's size; heads are often padded beyond it, and those ids are never drawn.
        `longest` bounds prompt and response together, in tokens. `memory` is vLLM's share of the device's memory.
        With several `ranks`, every one makes an engine, and `tensor_parallel` neighbours are one. With one rank,
        `tensor_parallel` beyond 1 starts workers of its own, which cannot take over other weights.

        Raises ValueError for what would fail again: a model that vLLM cannot run.
        Raises `EngineError` when the machine refuses: no vLLM, one for another device, too little memory.
        """
        os.environ |= _FIXED
        for name, value in _USUAL.items():
            os.environ.setdefault(name, value)
        llm = _import(device)
        if device == "cpu":
            _check_head_size(model)
        self.device, self.longest = device, longest
        self._asleep = False
        settings: dict[str, Any] = {"enable_sleep_mode": True, "gpu_memory_utilization": memory or VLLM_SHARE}
        if device == "cpu":  # compiled kernels are for GPUs
            settings = {"enforce_eager": True}
            settings |= {"gpu_memory_utilization": memory} if memory else {"kv_cache_memory_bytes": CPU_CACHE}
        if ranks > 1:
            settings["distributed_executor_backend"] = "external_launcher"
        with _explained("start"):
            self.llm = llm(
                model=str(model),
                skip_tokenizer_init=True,
                dtype=dtype,
                seed=0,  # of all ranks alike; every response has its own
                tensor_parallel_size=tensor_parallel,
                max_model_len=longest,
                max_num_seqs=max_rows,
                enable_prefix_caching=True,  # the prompt of a group is read once
                # Those of the policy that is sampled from: tempered, and of the tokenizer's ids alone.
                logprobs_mode="processed_logprobs",
                logits_processors=["entropy_mechanism.rollouts.vllm_mask:TokenizerIdsOnly"],
                additional_config={"vocabulary": vocabulary},
                disable_log_stats=True,
                use_tqdm_on_load=False,
                **settings,
            )

    def generate(
        self, prompts: Sequence[list[int]], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        """See `Engine.generate`.

        Raises ValueError for an empty prompt or one that leaves too little room, `EngineError` when vLLM fails.
        """
        if not all(prompts):
            raise ValueError("a prompt without tokens cannot be continued")
        needed = max(map(len, prompts), default=0) + sampling.max_tokens
        if needed > self.longest:
            raise ValueError(
                f"a prompt and its response may take {needed} tokens, and the vLLM engine was started for "
                f"{self.longest}"
            )
        from vllm import SamplingParams

        requests = [(prompt, seed) for prompt, row in zip(prompts, seeds, strict=True) for seed in row]
        if not requests:
            return [[] for _ in prompts]
        self._wake()
        with _explained("generate"):
            outputs = self.llm.generate(
                [{"prompt_token_ids": prompt} for prompt, _ in requests],
                [
                    SamplingParams(
                        temperature=sampling.temperature,
                        max_tokens=sampling.max_tokens,
                        seed=seed,
                        stop_token_ids=list(sampling.stop_ids),
                        ignore_eos=True,  # what ends a response is `stop_ids`, whatever the model's files say
                        logprobs=0,  # the sampled token's
                        flat_logprobs=True,
                        detokenize=False,
                    )
                    for _, seed in requests
                ],
                use_tqdm=False,
            )
            completions = iter([_completion(output.outputs[0]) for output in outputs])
        return [[next(completions) for _ in row] for row in seeds]

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """See `Engine.load_weights`. Raises `EngineError` when vLLM fails."""
        self._wake("weights")  # without the cache, so that it and whole tensors need no room together
        with _explained("take over the weights"):
            if self.device == "cpu":
                # Linear layers are packed after loading, which only this undoes. Without the output head among the
                # weights, a tied one would stay as it was.
                self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            else:
                self.llm.apply_model(lambda model: model.load_weights(weights))
            self._wake("kv_cache")
            # Blocks of a prompt's cache are found by its tokens, whatever weights filled them.
            if not self.llm.reset_prefix_cache():
                raise RuntimeError("the prefix cache could not be emptied")

    def sleep(self) -> None:
        """Move the weights to main memory and drop the cache, on a GPU; the CPU has no such mode."""
        if self.device == "cpu" or self._asleep:
            return
        with _explained("sleep"):
            # Level 1 keeps the weights, so that waking without `load_weights` cannot generate from nothing.
            self.llm.sleep(level=1)
        self._asleep = True

    def _wake(self, tag: str | None = None) -> None:
        if not self._asleep:
            return
        with _explained("wake up"):
            self.llm.wake_up(None if tag is None else [tag])
        self._asleep = tag == "weights"


def _import(device: str) -> Any:
    """vLLM's `LLM`, made for this device. Raises `EngineError` when there is none: another node may have it."""
    try:
        from vllm import LLM
        from vllm.platforms import current_platform
    except ImportError as error:
        raise EngineError(
            f"`compute` asks for engine vllm, which cannot be imported here ({error}). `make slurm GPU=1` makes "
            f"an environment with vllm {VLLM_VERSION} for GPUs (.venv-slurm), `make vllm` one for the CPU "
            "(.venv-vllm); or set engine: transformers"
        ) from None
    if current_platform.device_type != device:
        raise EngineError(
            f"`compute` asks for device {device} and engine vllm, and the vLLM installed here is for "
            f"{current_platform.device_type or 'no device of this machine'}; install the one for {device}, or set "
            "engine: transformers"
        )
    return LLM


def _check_head_size(model: Path | str) -> None:
    """Raise ValueError for a head size that vLLM has no attention for; it would say so in the first step only."""
    from transformers import AutoConfig
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    config = AutoConfig.from_pretrained(model, local_files_only=True)
    found = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    allowed = CPUAttentionBackend.get_supported_head_sizes()
    if found not in allowed:
        raise ValueError(
            f"vLLM cannot run the model in {model} on the CPU: its heads have size {found}; allowed: "
            f"{', '.join(map(str, allowed))}. Choose width and heads of such a size, or engine: transformers"
        )


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Turn whatever vLLM raises into one line: ValueError for what would come again, else `EngineError`.

    Torch's own generator, which vLLM seeds and draws from, is left as it was.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except EngineError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        text = reason.lower()
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "memory" in text:
            raise EngineError(
                f"vLLM had too little memory to {doing}: {reason[:500]} (`compute`'s vllm_memory is its share)"
            ) from error
        if isinstance(error, ValueError):
            raise ValueError(f"vLLM refuses to {doing}: {reason[:500]}") from None
        raise EngineError(
            f"vLLM failed to {doing}: {type(error).__name__}: {reason[:500]}; start the run again to go on from "
            "its last checkpoint"
        ) from error


def _completion(output: Any) -> Completion:
    """One of vLLM's outputs. Raises RuntimeError when it was given up."""
    if output.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"a response ended with '{output.finish_reason}'")
    logprobs = [float(value) for value in output.logprobs.logprobs]
    tokens = list(output.token_ids)
    if len(logprobs) != len(tokens) or list(output.logprobs.token_ids) != tokens:
        raise RuntimeError("log-probabilities are not those of the sampled tokens")
    return Completion(tokens, logprobs, output.finish_reason)
