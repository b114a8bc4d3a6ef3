"""Log-probabilities and entropies of responses: against float64, in any layout, and in little memory."""

import copy
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_mechanism.rl import head as head_module
from entropy_mechanism.rl.batch import Sequences, sequence_means
from entropy_mechanism.rl.head import head_statistics
from entropy_mechanism.rl.logprobs import token_statistics
from entropy_mechanism.rl.policy import Policy

SEQUENCES = Sequences(
    prompts=[[2, 3, 4], [5], [6, 7], [8, 9, 10, 11], [2]],
    responses=[[12, 13, 1], [14, 15, 16, 17, 1], [18], [1], [20, 21]],
)


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


def one_by_one(policy, prompt, response, temperature=1.0):
    """One unpadded sequence, in float64; the response's tokens are predicted from the place before each."""
    logits = policy(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    logprob = torch.distributions.Categorical(logits=logits / temperature).log_prob(torch.tensor(response))
    return logprob, torch.distributions.Categorical(logits=logits).entropy()


# --- the head -------------------------------------------------------------------------------------------------


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


# --- sequences ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_padded_and_packed_equal_each_sequence_alone_in_values_and_gradients(
    policy, temperature, packing, attention
):
    policy = policy.double()
    policy.set_attn_implementation(attention)
    alone = [
        one_by_one(policy, p, r, temperature) for p, r in zip(SEQUENCES.prompts, SEQUENCES.responses, strict=True)
    ]
    found = token_statistics(policy, SEQUENCES, temperature, entropy_gradient=True, packing=packing)
    results = []
    for logprob, entropy in (
        (found.logprob_N, found.entropy_N),
        (torch.cat([a for a, _ in alone]), torch.cat([b for _, b in alone])),
    ):
        policy.zero_grad()
        factor = torch.arange(1, len(logprob) + 1)
        (factor * logprob + factor.flip(0) * entropy).sum().backward()
        results.append((logprob, entropy, {name: p.grad.clone() for name, p in policy.named_parameters()}))
    assert results[0][0].dtype == torch.float64
    exact = attention == "sdpa"  # transformers' eager attention has a float32 softmax, whatever the model's type
    torch.testing.assert_close(results[0], results[1], atol=1e-10 if exact else 1e-3, rtol=1e-8 if exact else 1e-4)


def test_left_padding_with_a_mask_gives_the_same(policy):
    policy = policy.double()
    width = max(SEQUENCES.lengths)
    tokens = [p + r for p, r in zip(SEQUENCES.prompts, SEQUENCES.responses, strict=True)]
    ids = torch.tensor([[0] * (width - len(row)) + row for row in tokens])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens])
    logits = policy(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    expected = [
        logits[row, width - len(response) - 1 : width - 1].log_softmax(-1)[range(len(response)), response]
        for row, response in enumerate(SEQUENCES.responses)
    ]
    found = token_statistics(policy, SEQUENCES).logprob_N
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-10, rtol=1e-8)


def test_sequences_are_packed_by_default_only_where_attention_skips_other_sequences(policy, monkeypatch):
    seen = []
    forward = policy.model.forward
    monkeypatch.setattr(policy.model, "forward", lambda **kwargs: seen.append(kwargs) or forward(**kwargs))
    token_statistics(policy, SEQUENCES)
    assert seen[-1]["input_ids"].shape == (5, 6)
    monkeypatch.setattr(type(policy.config), "_attn_implementation", "flash_attention_2")
    with pytest.raises(Exception):  # noqa: B017, PT011 - flash attention itself is not there on a CPU
        token_statistics(policy, SEQUENCES)
    assert seen[-1]["input_ids"].shape == (1, 23)


def test_statistics_of_a_float32_policy_are_float32_and_near_float64(policy):
    found = token_statistics(policy, SEQUENCES)
    assert found.logprob_N.dtype == found.entropy_N.dtype == torch.float32
    double = token_statistics(copy.deepcopy(policy).double(), SEQUENCES)
    torch.testing.assert_close(found.logprob_N.double(), double.logprob_N, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(found.entropy_N.double(), double.entropy_N, atol=2e-5, rtol=1e-5)


def test_a_response_begins_after_its_prompt_and_ends_with_its_stop_token(policy):
    """Every token of the response counts, the stop token too, and no other token does."""
    found = token_statistics(policy, Sequences([[2, 3]], [[4, 1]]))
    logprobs = policy(torch.tensor([[2, 3, 4, 1]])).logits[0].log_softmax(-1)
    assert found.logprob_N.tolist() == pytest.approx([logprobs[1, 4].item(), logprobs[2, 1].item()], abs=1e-5)


@pytest.mark.parametrize("packing", [False, True])
def test_tied_weights_get_the_gradients_of_both_uses(policy, packing):
    config = copy.deepcopy(policy.config)
    config.tie_word_embeddings = True
    tied = type(policy)(config).double().eval()
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    token_statistics(tied, SEQUENCES, packing=packing).logprob_N.sum().backward()
    found = tied.lm_head.weight.grad.clone()
    tied.zero_grad()
    for prompt, response in zip(SEQUENCES.prompts, SEQUENCES.responses, strict=True):
        one_by_one(tied, prompt, response)[0].sum().backward()
    torch.testing.assert_close(found, tied.lm_head.weight.grad, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("packing", [False, True])
def test_an_empty_response_contributes_no_token(policy, packing):
    with_empty = Sequences([[2, 3], [4, 5, 6], [7]], [[8, 1], [], [9]])
    without = Sequences([[2, 3], [7]], [[8, 1], [9]])
    found = token_statistics(policy, with_empty, packing=packing)
    expected = token_statistics(policy, without, packing=packing)
    torch.testing.assert_close(found.logprob_N, expected.logprob_N, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.entropy_N, expected.entropy_N, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("packing", [False, True])
def test_responses_that_are_all_empty_still_go_backward(policy, packing):
    found = token_statistics(policy, Sequences([[2], [3, 4]], [[], []]), packing=packing)
    assert len(found.logprob_N) == len(found.entropy_N) == 0
    found.logprob_N.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in policy.parameters())


@pytest.mark.parametrize(
    ("prompts", "responses", "message"),
    [
        ([[2], [3]], [[4], [5, 40]], "sequence 1 has token id 40 at position 1 of its response; .* 0 to 39"),
        ([[2], [3]], [[4], [-1]], "sequence 1 has token id -1 at position 0 of its response"),
        ([[2, 99], [3]], [[4], [5]], "sequence 0 has token id 99 at position 1 of its prompt"),
        ([[2], []], [[4], [5]], "sequence 1 has a prompt without tokens"),
    ],
)
def test_unknown_tokens_and_empty_prompts_are_named(policy, prompts, responses, message):
    with pytest.raises(ValueError, match=message):
        token_statistics(policy, Sequences(prompts, responses))


# --- micro-batches --------------------------------------------------------------------------------------------

LENGTHS = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 12)), min_size=1, max_size=30)


def sequences_of(lengths):
    numbers = iter(range(10**6))
    return Sequences([[1] * p for p, _ in lengths], [[next(numbers) for _ in range(r)] for _, r in lengths])


def padded_sizes(sequences, parts):
    return [max(sequences[rows].lengths) * len(sequences[rows]) for rows in parts]


@pytest.mark.parametrize("tokens", [1, 7, 16, 10_000])
def test_measuring_in_micro_batches_keeps_every_value_in_its_place(policy, tokens):
    found = Policy(policy).measure(SEQUENCES, 0.8, 2048, tokens)
    expected = token_statistics(policy, SEQUENCES, 0.8)
    torch.testing.assert_close(found.logprob_N, expected.logprob_N.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.entropy_N, expected.entropy_N, atol=1e-5, rtol=1e-5)


def test_measuring_nothing_gives_nothing(policy):
    assert len(Policy(policy).measure(Sequences([], []), 1.0, 8, 8).logprob_N) == 0


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, tokens=st.integers(1, 120))
def test_micro_batches_hold_every_row_once_and_stay_within_their_size(lengths, tokens):
    sequences = sequences_of(lengths)
    consecutive = list(sequences.micro_batches(tokens))
    balanced = sequences.balanced_micro_batches(tokens)
    assert [row for part in consecutive for row in range(part.start, part.stop)] == list(range(len(lengths)))
    assert sorted(row for rows in balanced for row in rows) == list(range(len(lengths)))
    assert all(rows == sorted(rows) for rows in balanced)
    for parts in (consecutive, balanced):
        sizes = padded_sizes(sequences, parts)
        assert all(size <= tokens or len(sequences[rows]) == 1 for size, rows in zip(sizes, parts, strict=True))
    assert len(balanced) <= len(consecutive)


def test_balanced_micro_batches_are_even_and_pad_little():
    sequences = sequences_of([(1, 1), (1, 19)] * 8)
    assert len(list(sequences.micro_batches(100))) == 4
    balanced = sequences.balanced_micro_batches(100)
    # 8 responses of 20 tokens in two halves rather than 5 and 3, and the short ones with the second.
    assert padded_sizes(sequences, balanced) == [80, 80, 16]
    assert balanced[0] == [1, 3, 5, 7]


def test_balanced_micro_batches_of_one_part_leave_the_order_alone():
    assert SEQUENCES.balanced_micro_batches(10_000) == [[0, 1, 2, 3, 4]]


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, tokens=st.integers(1, 60))
def test_token_index_finds_the_tokens_of_rows_in_the_flat_vector(lengths, tokens):
    sequences = sequences_of(lengths)
    for rows in [*sequences.balanced_micro_batches(tokens), []]:
        index = sequences.token_index(rows)
        assert sequences.targets_N[index].tolist() == sequences[rows].targets_N.tolist()
        assert sequences.sequence_N[index].tolist() == [row for row in rows for _ in sequences.responses[row]]


def test_sequence_means_average_tokens_within_each_response():
    values = torch.tensor([1.0, 3.0, 10.0])
    means = sequence_means(values, torch.tensor([0, 0, 2]), 3)
    assert means[0] == 2
    assert means[1].isnan()
    assert means[2] == 10
