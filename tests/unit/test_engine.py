import pytest
import torch

from entropy_mechanism.rl.batch import Sequences
from entropy_mechanism.rl.logprobs import token_statistics
from entropy_mechanism.rollouts.engine import Sampling, sample_seed
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine

PROMPTS = [[2, 3, 4], [5], [6, 7, 8, 9, 10, 11], [12, 13]]
SAMPLING = Sampling(temperature=1.0, max_tokens=12, stop_ids=(1,))


def seeds_for(prompts, samples=4):
    return [[sample_seed(0, p, s) for s in range(samples)] for p in range(len(prompts))]


@pytest.fixture
def engine(policy):
    return TransformersEngine(policy, vocabulary=40)


def test_logprobs_are_those_of_a_plain_forward_pass(policy, engine):
    for temperature in (1.0, 0.6):
        sampling = Sampling(temperature, 12, (1,))
        groups = engine.generate(PROMPTS, sampling, seeds_for(PROMPTS))
        flat = [(p, c) for p, group in zip(PROMPTS, groups, strict=True) for c in group]
        sequences = Sequences([p for p, _ in flat], [c.token_ids for _, c in flat])
        expected = token_statistics(policy, sequences, temperature).logprob_N
        found = torch.tensor([value for _, c in flat for value in c.logprobs])
        torch.testing.assert_close(found, expected.detach(), atol=2e-5, rtol=1e-4)


def test_a_response_depends_on_its_prompt_and_seed_not_on_its_neighbours(engine):
    seeds = seeds_for(PROMPTS)
    together = engine.generate(PROMPTS, SAMPLING, seeds)
    for index, prompt in enumerate(PROMPTS):
        for sample, seed in enumerate(seeds[index]):
            (alone,) = engine.generate([prompt], SAMPLING, [[seed]])
            assert alone[0].token_ids == together[index][sample].token_ids


def test_splitting_the_batch_changes_no_response(policy, engine):
    seeds = seeds_for(PROMPTS)
    small = TransformersEngine(policy, vocabulary=40, max_rows=4)
    expected = engine.generate(PROMPTS, SAMPLING, seeds)
    assert [[c.token_ids for c in group] for group in small.generate(PROMPTS, SAMPLING, seeds)] == [
        [c.token_ids for c in group] for group in expected
    ]


def test_stop_token_ends_a_response_and_is_part_of_it(engine):
    groups = engine.generate(PROMPTS, SAMPLING, seeds_for(PROMPTS, 32))
    completions = [c for group in groups for c in group]
    assert {c.finish_reason for c in completions} == {"stop", "length"}
    for completion in completions:
        if completion.finish_reason == "stop":
            assert completion.token_ids.index(1) == len(completion.token_ids) - 1
        else:
            assert 1 not in completion.token_ids
            assert len(completion.token_ids) == SAMPLING.max_tokens


def test_greedy_takes_the_most_likely_token_each_time(policy, engine):
    groups = engine.generate(PROMPTS, Sampling(0.0, 8, (1,)), [[0]] * len(PROMPTS))
    for prompt, (completion,) in zip(PROMPTS, groups, strict=True):
        tokens = list(prompt)
        for token in completion.token_ids:
            with torch.no_grad():
                assert token == policy(torch.tensor([tokens])).logits[0, -1].argmax().item()
            tokens.append(token)


def test_first_tokens_follow_the_policys_distribution(policy, engine):
    samples = 20_000
    (group,) = engine.generate([[5]], Sampling(0.8, 1, (1,)), [[sample_seed(s) for s in range(samples)]])
    counts = torch.bincount(torch.tensor([c.token_ids[0] for c in group]), minlength=40)
    with torch.no_grad():
        expected = (policy(torch.tensor([[5]])).logits[0, -1] / 0.8).softmax(-1)
    deviation = (expected * (1 - expected) / samples).sqrt()
    assert ((counts / samples - expected).abs() < 5 * deviation + 1e-4).all()


def test_padded_rows_of_the_head_are_never_drawn(policy):
    with torch.no_grad():
        policy.lm_head.weight[30:] *= 50  # ids beyond the tokenizer, made tempting
    engine = TransformersEngine(policy, vocabulary=30)
    for temperature in (0.0, 1.0):
        groups = engine.generate(PROMPTS, Sampling(temperature, 12, (1,)), seeds_for(PROMPTS, 1))
        assert max(t for group in groups for c in group for t in c.token_ids) < 30


def test_generation_leaves_the_global_generator_and_the_mode_alone(policy, engine):
    policy.train()
    before = torch.get_rng_state()
    engine.generate(PROMPTS, SAMPLING, seeds_for(PROMPTS))
    assert torch.equal(torch.get_rng_state(), before)
    assert policy.training


def test_an_empty_prompt_is_refused(engine):
    with pytest.raises(ValueError, match="without tokens"):
        engine.generate([[2], []], SAMPLING, [[0], [1]])
