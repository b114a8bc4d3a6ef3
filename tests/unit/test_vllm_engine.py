"""What of the vLLM engine needs no vLLM: its absence, how it is called, when it sleeps."""

import os
import sys
import types
from pathlib import Path

import pytest
import torch

from entropy_mechanism.config import Compute
from entropy_mechanism.rl.ranks import Ranks, SharedEngine
from entropy_mechanism.rollouts.engine import Completion, EngineError, Sampling
from entropy_mechanism.rollouts.vllm_engine import VllmEngine
from entropy_mechanism.stages import sample
from entropy_mechanism.stages.train import permanent


@pytest.fixture(autouse=True)
def _environment():
    """An engine sets variables for vLLM."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


class Recorder:
    """Stands for vLLM's `LLM` on a GPU: notes what is asked of it."""

    made = None

    def __init__(self, **settings):
        self.settings, self.calls = settings, []
        Recorder.made = self

    def generate(self, prompts, params, use_tqdm):
        self.calls.append("generate")
        logprobs = types.SimpleNamespace(token_ids=[7], logprobs=[-0.5])
        output = types.SimpleNamespace(token_ids=[7], logprobs=logprobs, finish_reason="length")
        return [types.SimpleNamespace(outputs=[output]) for _ in prompts]

    def apply_model(self, function):
        model = types.SimpleNamespace(
            load_weights=lambda weights: self.calls.append([name for name, _ in weights])
        )
        function(model)

    def collective_rpc(self, method, kwargs):
        self.calls.append(method)

    def reset_prefix_cache(self):
        self.calls.append("reset")
        return True

    def sleep(self, level):
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags=None):
        self.calls.append(f"wake {tags}")


def vllm_for(monkeypatch, device):
    """Put something that stands for vLLM in its place."""
    platforms = types.ModuleType("vllm.platforms")
    platforms.current_platform = types.SimpleNamespace(device_type=device)
    vllm = types.ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams, vllm.platforms = Recorder, types.SimpleNamespace, platforms
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)


@pytest.fixture
def on_gpu(monkeypatch):
    """An engine as it is on a GPU, and the record of what it asked for."""
    vllm_for(monkeypatch, "cuda")
    engine = VllmEngine("folder", 50, longest=64, device="cuda", tensor_parallel=2, ranks=4)
    return engine, Recorder.made


def test_without_vllm_the_error_says_how_to_get_it_and_another_node_may_have_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(EngineError, match=r"vllm, which cannot be imported here .*make slurm GPU=1") as caught:
        VllmEngine("folder", 50, longest=64)
    assert not permanent(caught.value)


def test_vllm_for_another_device_is_refused_and_another_node_may_have_the_right_one(monkeypatch):
    vllm_for(monkeypatch, "cpu")
    with pytest.raises(EngineError, match="for device cuda and engine vllm, and the vLLM installed") as caught:
        VllmEngine("folder", 50, longest=64, device="cuda")
    assert not permanent(caught.value)


def test_a_failure_of_the_machine_is_tried_again():
    assert not permanent(EngineError("vLLM had too little memory"))


def test_ranks_are_vllms_workers_and_neighbours_share_the_weights(on_gpu):
    settings = on_gpu[1].settings
    assert settings["distributed_executor_backend"] == "external_launcher"
    assert settings["tensor_parallel_size"] == 2
    assert settings["enable_sleep_mode"]
    assert settings["gpu_memory_utilization"] == 0.4
    assert settings["logprobs_mode"] == "processed_logprobs"
    assert settings["additional_config"] == {"vocabulary": 50}
    assert settings["max_model_len"] == 64


def test_memory_is_given_back_for_the_update_and_the_cache_returns_after_the_weights(on_gpu):
    engine, made = on_gpu
    draw = ([[2, 3]], Sampling(1.0, 4, (1,)), [[5]])
    assert engine.generate(*draw) == [[Completion([7], [-0.5], "length")]]
    engine.sleep()
    engine.sleep()
    engine.load_weights((name, torch.zeros(1)) for name in "ab")
    engine.generate(*draw)
    assert made.calls == [
        *("generate", "sleep 1", "wake ['weights']", ["a", "b"], "wake ['kv_cache']", "reset", "generate")
    ]


def test_a_sleeping_engine_wakes_to_generate(on_gpu):
    engine, made = on_gpu
    engine.sleep()
    engine.generate([[2]], Sampling(1.0, 4, (1,)), [[5]])
    assert made.calls == ["sleep 1", "wake None", "generate"]


def test_a_cache_that_cannot_be_emptied_ends_the_run(on_gpu, monkeypatch):
    monkeypatch.setattr(on_gpu[1], "reset_prefix_cache", lambda: False)
    with pytest.raises(EngineError, match="prefix cache could not be emptied"):
        on_gpu[0].load_weights([])


@pytest.mark.parametrize(("kind", "lasting"), [(ValueError, True), (RuntimeError, False), (MemoryError, False)])
def test_what_vllm_raises_is_one_line_of_the_right_kind(on_gpu, monkeypatch, kind, lasting):
    def fail(*_, **__):
        raise kind("two\nlines")

    monkeypatch.setattr(on_gpu[1], "generate", fail)
    with pytest.raises((ValueError, OSError), match="two lines") as caught:
        on_gpu[0].generate([[2]], Sampling(1.0, 4, (1,)), [[5]])
    assert permanent(caught.value) == lasting


class Echo:
    """An engine whose completions name the seed they were asked for."""

    def __init__(self):
        self.asked = []

    def generate(self, prompts, sampling, seeds):
        self.asked.append(list(prompts))
        return [[Completion([seed], [0.0], "stop") for seed in row] for row in seeds]


@pytest.mark.parametrize("together", [1, 2, 4])
def test_neighbouring_ranks_of_one_engine_answer_the_same_prompts_and_all_get_every_completion(together):
    """Four ranks, one after another: each one's own part is noted first, then all parts are put together."""
    prompts, seeds = [[i + 1] for i in range(7)], [[10 * i, 10 * i + 1] for i in range(7)]
    engines, parts = [Echo() for _ in range(4)], []
    for rank, engine in enumerate(engines):
        ranks = Ranks(rank, 4)
        object.__setattr__(ranks, "gather", lambda value: parts.append(value) or [])
        SharedEngine(engine, ranks, together).generate(prompts, Sampling(1.0, 4, ()), seeds)
    for rank in range(4):
        assert engines[rank].asked == engines[rank - rank % together].asked
    ranks = Ranks(2, 4)
    object.__setattr__(ranks, "gather", lambda value: parts)
    found = SharedEngine(Echo(), ranks, together).generate(prompts, Sampling(1.0, 4, ()), seeds)
    assert [[completion.token_ids[0] for completion in group] for group in found] == seeds


def test_the_engine_of_an_evaluation_has_room_for_the_longest_benchmark(monkeypatch):
    """The longest prompt and the longest answer of one benchmark, not of two; its own `max_response` counts."""
    asked = {"short": 30, "long": 10}
    responder = object.__new__(sample._Responder)
    responder.source = types.SimpleNamespace(weights=Path("weights"))
    responder.experiment = types.SimpleNamespace(training=types.SimpleNamespace(dtype="float32"))
    responder.evaluation = types.SimpleNamespace(
        max_response=100,
        benchmarks={
            "short": types.SimpleNamespace(max_response=None),
            "long": types.SimpleNamespace(max_response=500),
        },
    )
    responder.compute, responder.problems, responder.tokenizer = Compute(engine="vllm"), asked, range(7)
    responder._questions = lambda name: [types.SimpleNamespace(prompt_ids=[0] * asked[name])]
    monkeypatch.setattr(sample, "vllm_engine", lambda compute, weights, vocabulary, longest, dtype: longest)
    assert responder._engine() == 510
