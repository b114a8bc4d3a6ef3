"""The plan of a training's memory against what torch allocates, and what is refused for it."""

import pytest
import torch
from test_training import config_for
from transformers import Qwen2Config, Qwen2ForCausalLM

from entropy_mechanism import memory
from entropy_mechanism.config import Compute
from entropy_mechanism.rl.batch import Sequences
from entropy_mechanism.rl.policy import Policy, recompute_activations
from entropy_mechanism.rl.ranks import Ranks
from entropy_mechanism.rl.update import MiniBatch, update
from entropy_mechanism.shapes import Shape

SMALL = Shape(layers=6, width=256, heads=8, kv_heads=2, feed_forward=1024, vocabulary=12_000)
LARGE = Shape(layers=4, width=512, heads=8, kv_heads=4, feed_forward=2048, vocabulary=30_000, tied=True)
LONGEST = 256
"""Tokens of every sequence, so that micro-batches are full."""


def model_of(shape, attention=None):
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.feed_forward,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            tie_word_embeddings=shape.tied,
            attn_implementation=attention,
        )
    )


def peak_on_cpu(step):
    """Most bytes that were allocated at once during `step`, above those before it: torch's own count."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        highest = max(highest, total)
    return highest


def step_of(shape, run, device="cpu"):
    """A policy with gradients and moments from a first update, the bytes these take, and a second update."""
    model = model_of(shape, run.compute.attention)
    if run.compute.activation_checkpointing:
        recompute_activations(model)
    policy = Policy(model, run.training.dtype, Ranks(device=torch.device(device)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    rows = 2 * run.training.micro_batch_tokens // LONGEST
    tokens = torch.randint(0, shape.vocabulary, (rows, LONGEST), generator=generator).tolist()
    sequences = Sequences([row[:8] for row in tokens], [row[8:] for row in tokens])
    count = len(sequences.targets_N)
    batch = MiniBatch(sequences, torch.zeros(count), torch.randn(count, generator=generator))

    def step():
        update(policy, optimizer, batch, run, (1,), first=True)

    step()
    held = sum(parameter.numel() * 4 for parameter in model.parameters())
    moments = sum(value.numel() * 4 for state in optimizer.state.values() for value in state.values())
    return step, held, moments


def run_of(**settings):
    compute = Compute(**{"device": "cpu", **settings.pop("compute", {})})
    training = {"micro_batch_tokens": 2048, "logprob_chunk": 256, "max_response": LONGEST}
    return config_for(**training | settings).model_copy(update={"compute": compute})


CASES = {
    "small": (SMALL, {}),
    "large": (LARGE, {}),
    "recomputing activations": (SMALL, {"compute": {"activation_checkpointing": True}}),
    "an entropy bonus": (SMALL, {"regularisation": {"entropy": 0.1}}),
    "eager attention": (SMALL, {"compute": {"attention": "eager"}}),
    "half precision": (SMALL, {"dtype": "bfloat16"}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_memory_of_an_update_is_what_torch_allocates(name, monkeypatch):
    shape, settings = CASES[name]
    monkeypatch.setattr(memory, "PROMPT_TOKENS", 0)
    run = run_of(**settings)
    step, weights, moments = step_of(shape, run)
    # The gradients of the first update are there before the second and are given back in it.
    found = weights + moments + weights + max(0, peak_on_cpu(step))
    phases = memory.estimate(run, shape).phases
    expected = max(phase.size for phase in phases if phase.name != "rollout")
    print(f"{name}: {shape.parameters / 1e6:.0f} M parameters, {found / 1e6:.0f} MB, planned {expected / 1e6:.0f}")
    assert expected == pytest.approx(found, rel=0.25)
