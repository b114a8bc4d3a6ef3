"""Sampling with weights in oneDNN's order is sampling from the same policy, and leaves the policy as it was."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from entropy_mechanism.rollouts.engine import Sampling
from entropy_mechanism.rollouts.prepacked import LEAST, prepacked
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine

VOCABULARY = 1000
PROMPTS, SEEDS, SAMPLING = [[1, 2, 3], [4, 5]], [[1, 2, 3], [4, 5, 6]], Sampling(1.0, 12, (7,))
IDS = torch.arange(24).view(2, 12)


@pytest.fixture
def model():
    """Large enough that most products are worth it, with biases, and heads tied to embeddings."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=320,
        intermediate_size=640,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.1,
    )
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_()
    return model


def with_products_of_their_own(model):
    """Names of the layers that would not multiply as torch does."""
    return {name for name, layer in model.named_modules() if "forward" in vars(layer)}


@torch.no_grad()
def test_large_layers_multiply_with_ordered_copies_and_give_the_same_but_for_rounding(model):
    before = model(IDS).logits
    with prepacked(model):
        large = {name for name, layer in model.named_modules()
                 if isinstance(layer, torch.nn.Linear) and layer.weight.numel() >= LEAST}  # fmt: skip
        assert with_products_of_their_own(model) == large
        assert {name.rsplit(".", 1)[-1] for name in large} == {
            "q_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"
        }  # fmt: skip
        inside = model(IDS).logits
    assert not torch.equal(inside, before)  # otherwise nothing was tried
    torch.testing.assert_close(inside, before, rtol=1e-4, atol=1e-4)
    assert not with_products_of_their_own(model)
    assert torch.equal(model(IDS).logits, before)


def test_a_block_that_fails_leaves_the_model_as_it_was(model):
    with pytest.raises(KeyError), prepacked(model):
        raise KeyError
    assert not with_products_of_their_own(model)


def test_no_layer_is_changed_when_one_cannot_be_copied(model, monkeypatch):
    reorder = torch.ops.mkldnn._reorder_linear_weight

    def no_room(weight):
        if len(weight) == VOCABULARY:  # the last one
            raise RuntimeError("no room")
        return reorder(weight)

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", no_room)
    with pytest.raises(RuntimeError, match="no room"), prepacked(model):
        pass
    assert not with_products_of_their_own(model)


def test_layers_that_compute_something_else_keep_it(model):
    """Subclasses of linear layers, and those that somebody has given a `forward` of their own."""
    first, second = model.model.layers
    first.mlp.up_proj.__class__ = type("Adapted", (torch.nn.Linear,), {})
    vars(second.mlp.up_proj)["forward"] = second.mlp.up_proj.forward
    with prepacked(model), prepacked(model):
        assert "forward" not in vars(first.mlp.up_proj)
        assert "forward" in vars(first.mlp.down_proj)
    assert with_products_of_their_own(model) == {"model.layers.1.mlp.up_proj"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_own_kernels(model, dtype):
    with torch.autocast("cpu", dtype), prepacked(model):
        assert not with_products_of_their_own(model)
    with prepacked(model.to(dtype)):
        assert not with_products_of_their_own(model)


def test_the_engine_samples_from_the_weights_as_they_are_at_each_call(model):
    engine = TransformersEngine(model, VOCABULARY)
    first = engine.generate(PROMPTS, SAMPLING, SEEDS)
    assert engine.generate(PROMPTS, SAMPLING, SEEDS) == first
    model(IDS).logits.square().mean().backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= weight.grad
    second = engine.generate(PROMPTS, SAMPLING, SEEDS)
    assert second != first
    for prompt, row in zip(PROMPTS, second, strict=True):
        for completion in row:
            with torch.no_grad():
                logits = model(torch.tensor([prompt + completion.token_ids])).logits[0, len(prompt) - 1 : -1]
            found = logits.log_softmax(-1)[range(len(completion.token_ids)), completion.token_ids]
            torch.testing.assert_close(torch.tensor(completion.logprobs), found, rtol=1e-3, atol=1e-3)
