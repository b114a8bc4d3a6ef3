"""Log-probabilities and entropies of responses: against float64, in any layout."""

import copy

import pytest
import torch

from entropy_mechanism.rl import logprobs
from entropy_mechanism.rl.batch import Sequences
from entropy_mechanism.rl.logprobs import token_statistics
from entropy_mechanism.rl.policy import Policy, recompute_activations

SEQUENCES = Sequences(
    prompts=[[2, 3, 4], [5], [6, 7], [8, 9, 10, 11], [2]],
    responses=[[12, 13, 1], [14, 15, 16, 17, 1], [18], [1], [20, 21]],
)


# A group of three, one of two with a response of one token and an empty one, and a prompt of its own.
GROUPS = Sequences(
    prompts=[[2, 3, 4], [2, 3, 4], [2, 3, 4], [5], [5], [6, 7]],
    responses=[[12, 13, 1], [14, 15, 16, 17, 1], [18, 19], [1], [], [20, 21, 22]],
)


@pytest.fixture
def layout(request, monkeypatch):
    """How the model reads, by name; the value of `packing` for it."""
    monkeypatch.setattr(logprobs, "LEAST_SAVED", 0 if request.param == "prompts once" else 2)
    return request.param == "packed"


def in_float64(policy):
    """With norms in float64 too: transformers' go through float32, which rounds a sum of gradients otherwise."""
    for norm in [module for module in policy.modules() if type(module).__name__.endswith("RMSNorm")]:
        norm.forward = lambda states, norm=norm: torch.nn.functional.rms_norm(
            states, states.shape[-1:], norm.weight, norm.variance_epsilon
        )
    return policy.double()


def one_by_one(policy, prompt, response, temperature=1.0):
    """One unpadded sequence, in float64; the response's tokens are predicted from the place before each."""
    logits = policy(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    logprob = torch.distributions.Categorical(logits=logits / temperature).log_prob(torch.tensor(response))
    return logprob, torch.distributions.Categorical(logits=logits).entropy()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layout", ["rows", "packed", "prompts once"], indirect=True)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("sequences", [SEQUENCES, GROUPS], ids=["own prompts", "shared prompts"])
def test_any_layout_equals_each_sequence_alone_in_values_and_gradients(
    policy, sequences, temperature, layout, attention
):
    exact = attention == "sdpa"  # transformers' eager attention has a float32 softmax, whatever the model's type
    if exact:
        policy = in_float64(policy)
    policy.set_attn_implementation(attention)
    alone = [
        one_by_one(policy, prompt, response, temperature)
        for prompt, response in zip(sequences.prompts, sequences.responses, strict=True)
        if response
    ]
    found = token_statistics(policy, sequences, temperature, entropy_gradient=True, packing=layout)
    results = []
    for logprob, entropy in (
        (found.logprob_N, found.entropy_N),
        (torch.cat([a for a, _ in alone]), torch.cat([b for _, b in alone])),
    ):
        policy.zero_grad()
        factor = torch.arange(1, len(logprob) + 1)
        (factor * logprob + factor.flip(0) * entropy).sum().backward()
        results.append((logprob, entropy, {name: p.grad.clone() for name, p in policy.named_parameters()}))
    assert results[0][0].dtype == (torch.float64 if exact else torch.float32)
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


@pytest.mark.parametrize("layout", ["rows", "packed", "prompts once"], indirect=True)
def test_tied_weights_get_the_gradients_of_both_uses(policy, layout):
    config = copy.deepcopy(policy.config)
    config.tie_word_embeddings = True
    tied = type(policy)(config).double().eval()
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    token_statistics(tied, SEQUENCES, packing=layout).logprob_N.sum().backward()
    found = tied.lm_head.weight.grad.clone()
    tied.zero_grad()
    for prompt, response in zip(SEQUENCES.prompts, SEQUENCES.responses, strict=True):
        one_by_one(tied, prompt, response)[0].sum().backward()
    torch.testing.assert_close(found, tied.lm_head.weight.grad, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("layout", ["rows", "packed", "prompts once"], indirect=True)
def test_an_empty_response_contributes_no_token(policy, layout):
    with_empty = Sequences([[2, 3], [4, 5, 6], [7]], [[8, 1], [], [9]])
    without = Sequences([[2, 3], [7]], [[8, 1], [9]])
    found = token_statistics(policy, with_empty, packing=layout)
    expected = token_statistics(policy, without, packing=layout)
    torch.testing.assert_close(found.logprob_N, expected.logprob_N, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.entropy_N, expected.entropy_N, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["rows", "packed", "prompts once"], indirect=True)
def test_responses_that_are_all_empty_still_go_backward(policy, layout):
    found = token_statistics(policy, Sequences([[2], [3, 4]], [[], []]), packing=layout)
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


@pytest.mark.parametrize("tokens", [1, 7, 16, 10_000])
def test_measuring_in_micro_batches_keeps_every_value_in_its_place(policy, tokens):
    found = Policy(policy).measure(SEQUENCES, 0.8, 2048, tokens)
    expected = token_statistics(policy, SEQUENCES, 0.8)
    torch.testing.assert_close(found.logprob_N, expected.logprob_N.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.entropy_N, expected.entropy_N, atol=1e-5, rtol=1e-5)


def test_measuring_nothing_gives_nothing(policy):
    assert len(Policy(policy).measure(Sequences([], []), 1.0, 8, 8).logprob_N) == 0


def tokens_read(policy, sequences, **options):
    """How many tokens the model reads, padding included, for the statistics of `sequences`."""
    counts = []
    hook = policy.model.register_forward_pre_hook(
        lambda module, args, kwargs: counts.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    token_statistics(policy, sequences, **options)
    hook.remove()
    return sum(counts)


def test_a_prompt_is_read_once_for_its_responses_where_that_saves_enough(policy):
    prompt, responses = [2, 3, 4, 5], [[6, 7, 8, 1]] * 3
    whole = 3 * (4 + 4)
    assert tokens_read(policy, Sequences([prompt] * 3, responses)) == 4 + 3 * 3
    assert tokens_read(policy, Sequences([prompt] * 3, responses), packing=True) == whole
    little = Sequences([[2, 3], [2, 3], [9, 3]], [[6] * 19 + [1]] * 3)
    assert tokens_read(policy, little) == 3 * 22 > 2 * 2 + 3 * 19 > (1 - logprobs.LEAST_SAVED) * 3 * 22
    # Long prompts with short responses beside short ones with long: their padding is more than is saved.
    mixed = Sequences([[2] * 20] * 4 + [[3] * 2] * 4, [[6, 1]] * 4 + [[6] * 19 + [1]] * 4)
    assert tokens_read(policy, mixed) == 8 * 22 < 2 * 20 + 8 * 19


def test_layers_that_compute_their_activations_again_read_whole_sequences_with_the_same_gradients(policy):
    groups = Sequences([[2, 3, 4, 5]] * 3, [[6, 7, 8, 1], [9, 1], [10, 11, 1]])
    again = recompute_activations(copy.deepcopy(policy))
    assert tokens_read(again, groups) == 3 * 8 > tokens_read(policy, groups)
    for model in (policy, again):
        token_statistics(model, groups).logprob_N.sum().backward()
    for own, other in zip(policy.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, atol=1e-5, rtol=1e-4)
