"""Log-probabilities and entropies of tokens from hidden states: against float64, and in little memory."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_mechanism.rl import head as head_module
from entropy_mechanism.rl.head import head_statistics


def head(tokens=7, vocabulary=11, width=5, scale=1.0, dtype=torch.float64):
    """Random hidden states [N, D], weight [V, D] and targets [N]."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator, dtype=torch.float64) * scale
    weight = torch.randn(vocabulary, width, generator=generator, dtype=torch.float64)
    target = torch.randint(0, vocabulary, (tokens,), generator=generator)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), target


def expected(hidden, weight, target, temperature=1.0):
    """The same from all logits, by torch's own distribution and autograd."""
    logits = hidden @ weight.T
    logprob = torch.distributions.Categorical(logits=logits / temperature).log_prob(target)
    return logprob, torch.distributions.Categorical(logits=logits).entropy()


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.5])
def test_values_and_gradients_equal_those_of_all_logits_in_float64(temperature, chunk):
    hidden, weight, target = head()
    factors = torch.randn(2, len(target), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = []
    for logprob, entropy in (
        head_statistics(hidden, weight, target, temperature, chunk, entropy_gradient=True),
        expected(hidden, weight, target, temperature),
    ):
        parts = (factors[0] * logprob).sum(), (factors[1] * entropy).sum()
        gradients = [
            gradient
            for loss in (*parts, sum(parts))
            for gradient in torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
        ]
        results.append((logprob, entropy, *gradients))
    torch.testing.assert_close(results[0], results[1], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_gradcheck(temperature):
    hidden, weight, target = head(tokens=3, vocabulary=6, width=2)
    assert torch.autograd.gradcheck(
        lambda h, w: head_statistics(h, w, target, temperature, 2, entropy_gradient=True), (hidden, weight)
    )


@settings(max_examples=30, deadline=None)
@given(
    tokens=st.integers(0, 9),
    vocabulary=st.integers(1, 12),
    chunk=st.integers(1, 12),
    scale=st.sampled_from([0.0, 0.1, 1.0, 30.0, 1000.0]),
    temperature=st.sampled_from([1.0, 0.3, 4.0]),
)
def test_no_log_probability_is_positive_and_no_entropy_negative_or_above_log_v(
    tokens, vocabulary, chunk, scale, temperature
):
    hidden, weight, target = head(tokens, vocabulary, 3, scale, torch.float32)
    logprob, entropy = head_statistics(hidden, weight, target, temperature, chunk)
    assert (logprob <= 0).all()
    assert (entropy >= 0).all()
    assert (entropy <= math.log(vocabulary) + 1e-5).all()
    logprob.sum().backward()
    assert hidden.grad.isfinite().all()


def test_a_certain_token_has_log_probability_zero_not_a_rounding_above(policy):
    hidden, weight, _ = head(tokens=64, vocabulary=1000, scale=20, dtype=torch.float32)
    target = (hidden @ weight.T).argmax(-1)
    for temperature in (1.0, 0.1):
        logprob, _ = head_statistics(hidden, weight, target, temperature)
        assert logprob.max() == 0


def test_temperature_changes_the_log_probability_and_not_the_entropy():
    hidden, weight, target = head()
    cold, warm = (head_statistics(hidden, weight, target, temperature) for temperature in (0.5, 1.0))
    assert not torch.allclose(cold[0], warm[0], atol=1e-2)
    assert torch.equal(cold[1], warm[1])


def test_entropy_has_a_gradient_only_when_asked():
    hidden, weight, target = head()
    logprob, entropy = head_statistics(hidden, weight, target)
    assert logprob.requires_grad
    assert not entropy.requires_grad
    assert head_statistics(hidden, weight, target, entropy_gradient=True)[1].requires_grad


def test_uniform_logits_have_entropy_log_v_and_equal_gradients():
    hidden, _, target = head(vocabulary=11)
    weight = torch.zeros(11, 5, dtype=torch.float64, requires_grad=True)
    logprob, entropy = head_statistics(hidden, weight, target, entropy_gradient=True)
    assert entropy.tolist() == pytest.approx([math.log(11)] * 7, abs=1e-14)
    assert logprob.tolist() == pytest.approx([-math.log(11)] * 7, abs=1e-14)
    entropy.sum().backward()
    assert weight.grad.abs().max() < 1e-15  # the entropy is at its maximum


def test_one_hot_logits_have_entropy_zero_and_finite_gradients():
    hidden = torch.ones(2, 3, requires_grad=True)
    weight = torch.zeros(4, 3)
    weight[1] = 1e7
    weight.requires_grad_()
    logprob, entropy = head_statistics(hidden, weight, torch.tensor([1, 2]), entropy_gradient=True)
    assert entropy.tolist() == [0, 0]
    assert logprob.tolist() == [0, -3e7]
    (logprob + entropy).sum().backward()
    # Token 2 was impossible: its gradient is onehot - p = [0, -1, 1, 0]; token 1 was certain: none.
    assert weight.grad.tolist() == [[0.0] * 3, [-1.0] * 3, [1.0] * 3, [0.0] * 3]
    assert hidden.grad.isfinite().all()


def test_half_precision_hidden_states_give_float32_statistics_within_a_thousandth_nat():
    hidden, weight, target = head(tokens=50, vocabulary=500, width=64, dtype=torch.bfloat16)
    truth = expected(hidden.detach().double(), weight.detach().double(), target)
    assert truth[0].min() < -10  # logits large enough for their rounding to bfloat16 to show
    found = head_statistics(hidden, weight, target, entropy_gradient=True)
    for value, true in zip(found, truth, strict=True):
        assert value.dtype == torch.float32
        assert (value - true).abs().max() < 1e-3
    (found[0] + found[1]).sum().backward()
    double = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    sum(part.sum() for part in expected(*double, target)).backward()
    for tensor, true in zip((hidden, weight), double, strict=True):
        assert tensor.grad.dtype == torch.bfloat16
        assert (tensor.grad - true.grad).norm() < 0.01 * true.grad.norm()


def test_autocast_around_the_head_does_not_round_its_logits():
    hidden, weight, target = head(tokens=20, vocabulary=200, width=32, scale=2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head_statistics(hidden, weight, target)
        found[0].sum().backward()
    gradient = weight.grad.clone()
    weight.grad = None
    plain = head_statistics(hidden, weight, target)
    plain[0].sum().backward()
    assert torch.equal(found[0], plain[0])
    assert torch.equal(gradient, weight.grad)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_a_frozen_side_costs_no_gradient_and_the_other_gets_its_own(frozen, monkeypatch):
    hidden, weight, target = head()
    head_statistics(hidden, weight, target)[0].sum().backward()
    kept, left = (weight, hidden) if frozen == "hidden" else (hidden, weight)
    gradient, kept.grad, left.grad = kept.grad, None, None
    left.requires_grad_(False)
    asked = []
    monkeypatch.setattr(
        head_module, "_add_gradients_", lambda *a, f=head_module._add_gradients_: asked.append(a) or f(*a)
    )
    head_statistics(hidden, weight, target)[0].sum().backward()
    assert left.grad is None
    assert torch.equal(kept.grad, gradient)
    *_, hidden_gradient, weight_gradient = asked[0]
    assert (hidden_gradient is None, weight_gradient is None) == (frozen == "hidden", frozen == "weight")


def test_no_tokens_give_empty_statistics_that_still_carry_a_zero_gradient():
    hidden, weight, target = head(tokens=0)
    logprob, entropy = head_statistics(hidden, weight, target, entropy_gradient=True)
    assert logprob.shape == entropy.shape == (0,)
    (logprob.sum() + entropy.sum()).backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))


MEMORY = """
import resource, torch
from entropy_mechanism.rl.head import head_statistics
torch.set_num_threads(1)
weight = torch.randn(50_000, 64).requires_grad_()
hidden = torch.randn(2048, 64).requires_grad_()
target = torch.randint(0, 50_000, (2048,))
def run(tokens, chunk, entropy_gradient):
    logprob, entropy = head_statistics(hidden[:tokens], weight, target[:tokens], 0.9, chunk, entropy_gradient)
    (logprob.sum() + (entropy.sum() if entropy_gradient else 0)).backward()
    weight.grad = hidden.grad = None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = run(8, 8, True)  # the libraries are loaded
print(run(2048, 128, False) - before, run(512, 128, True) - before)
"""


def test_peak_memory_is_two_chunks_of_logits_and_the_gradients():
    child = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    row = 50_000 * 4
    gradients = (50_000 + 2048) * 64 * 4
    allowed = 2 * 128 * row + gradients + 20e6
    assert allowed < 0.25 * 2048 * row  # far below the full logits
    plain, with_entropy_gradient = map(int, child.stdout.split())
    assert plain < allowed
    assert with_entropy_gradient < allowed
