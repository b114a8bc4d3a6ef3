import math

import pytest
import torch

from entropy_mechanism.rl.batch import Sequences, sequence_means
from entropy_mechanism.rl.logprobs import measure, token_statistics

SEQUENCES = Sequences(
    prompts=[[2, 3, 4], [5], [6, 7], [8, 9, 10, 11], [2]],
    responses=[[12, 13, 1], [14, 15, 16, 17, 1], [18], [1], [20, 21]],
)


def reference(policy, prompt, response, temperature=1.0):
    """One unpadded sequence at a time, in float64, with torch's own distribution."""
    with torch.no_grad():
        logits = policy.double()(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    policy.float()
    logprob = torch.distributions.Categorical(logits=logits / temperature).log_prob(torch.tensor(response))
    return logprob, torch.distributions.Categorical(logits=logits).entropy()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_statistics_equal_the_float64_distribution_of_each_sequence_alone(policy, temperature):
    found = token_statistics(policy, SEQUENCES, temperature)
    pairs = [
        reference(policy, p, r, temperature) for p, r in zip(SEQUENCES.prompts, SEQUENCES.responses, strict=True)
    ]
    assert found.logprob_N.dtype == found.entropy_N.dtype == torch.float32
    torch.testing.assert_close(found.logprob_N.double(), torch.cat([a for a, _ in pairs]), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(found.entropy_N.double(), torch.cat([b for _, b in pairs]), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_chunk_size_changes_neither_values_nor_gradients(policy, chunk):
    def values_and_gradient(size):
        policy.zero_grad()
        statistics = token_statistics(policy, SEQUENCES, chunk=size)
        (statistics.logprob_N * torch.arange(len(statistics.logprob_N))).sum().backward()
        return statistics.logprob_N.detach(), statistics.entropy_N, policy.lm_head.weight.grad.clone()

    for found, expected in zip(values_and_gradient(chunk), values_and_gradient(5), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("tokens", [1, 7, 16, 10_000])
def test_micro_batches_change_no_value(policy, tokens):
    found = measure(policy, SEQUENCES, 1.0, 2048, tokens)
    expected = token_statistics(policy, SEQUENCES)
    torch.testing.assert_close(found.logprob_N, expected.logprob_N.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.entropy_N, expected.entropy_N, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tokens", [1, 6, 12, 1000])
def test_micro_batches_hold_every_row_once_and_stay_within_their_size(tokens):
    parts = list(SEQUENCES.micro_batches(tokens))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(5))
    for part in parts:
        lengths = [
            len(p) + len(r) for p, r in zip(SEQUENCES.prompts[part], SEQUENCES.responses[part], strict=True)
        ]
        assert len(lengths) == 1 or max(lengths) * len(lengths) <= tokens


def test_uniform_logits_have_the_entropy_of_the_vocabulary_and_one_hot_none(policy):
    with torch.no_grad():
        policy.lm_head.weight.zero_()
    assert token_statistics(policy, SEQUENCES).entropy_N.tolist() == pytest.approx([math.log(40)] * 12)
    with torch.no_grad():
        policy.lm_head.weight[7] = 1e6  # wins where the hidden state's sum is positive, the other where negative
        policy.lm_head.weight[8] = -1e6
    entropy = token_statistics(policy, SEQUENCES).entropy_N
    assert entropy.max() == 0
    assert entropy.isfinite().all()


def test_sequence_means_average_tokens_within_each_response():
    values = torch.tensor([1.0, 3.0, 10.0])
    means = sequence_means(values, torch.tensor([0, 0, 2]), 3)
    assert means[0] == 2
    assert means[1].isnan()
    assert means[2] == 10
