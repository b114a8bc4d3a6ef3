"""The vLLM engine on the CPU against the transformers engine and the trainer. Each trap has a test of its own."""

import gc
import signal

import pytest
import torch
from vllm_policies import VOCABULARY, random_policy, saved

from entropy_mechanism.rl.policy import Policy
from entropy_mechanism.rollouts.engine import EngineError, Sampling, sample_seed
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine
from entropy_mechanism.rollouts.vllm_engine import VllmEngine

pytestmark = pytest.mark.vllm

PROMPTS = [[2, 3, 4], [5], [6, 7, 8, 9, 10, 11], [12, 13]]
STOP = 1
TOLERANCE = 1e-4
"""Nats between log-probabilities of the same tokens, in float32."""
MODELS = [(32, True), (64, False)]


def sampling(temperature=1.0, max_tokens=12, stop=(STOP,)):
    return Sampling(temperature, max_tokens, stop)


def seeds_for(prompts, samples=4):
    return [[sample_seed(0, p, s) for s in range(samples)] for p in range(len(prompts))]


@pytest.fixture(scope="module", params=MODELS, ids=lambda model: f"head {model[0]}, tied {model[1]}")
def started(request, tmp_path_factory):
    """An engine and what makes the policy it started with."""
    head, tied = request.param
    folder = saved(random_policy(head, tied), tmp_path_factory.mktemp("policy") / "weights")
    yield VllmEngine(folder, VOCABULARY, longest=400), lambda seed=0: random_policy(head, tied, seed)
    gc.collect()


@pytest.fixture
def engine(started):
    """The engine with the weights it started with."""
    started[0].load_weights(Policy(started[1]()).weights())
    return started[0]


@pytest.fixture
def policy(started):
    """The policy it holds."""
    return started[1]()


def error(policy, prompts, groups, temperature=1.0, vocabulary=VOCABULARY):
    """Largest difference between the completions' log-probabilities and a plain forward pass of `policy`."""
    worst = 0.0
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            ids = torch.tensor([prompt + completion.token_ids])
            with torch.no_grad():
                logits = policy(ids).logits[0, len(prompt) - 1 : -1, :vocabulary].double() / temperature
            expected = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None]).squeeze(1)
            worst = max(worst, (torch.tensor(completion.logprobs) - expected).abs().max().item())
    return worst


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_those_of_the_policy_at_the_sampling_temperature(engine, policy, temperature):
    groups = engine.generate(PROMPTS, sampling(temperature), seeds_for(PROMPTS))
    assert error(policy, PROMPTS, groups, temperature) < TOLERANCE
    if temperature != 1:
        assert error(policy, PROMPTS, groups, 1.0) > 0.1  # they could be told from those of temperature 1


def test_greedy_responses_are_those_of_the_transformers_engine(engine, policy):
    reference = TransformersEngine(policy, VOCABULARY)
    seeds = [[0]] * len(PROMPTS)
    for found, expected in zip(
        engine.generate(PROMPTS, sampling(0.0), seeds),
        reference.generate(PROMPTS, sampling(0.0), seeds),
        strict=True,
    ):
        assert found[0].token_ids == expected[0].token_ids
        assert found[0].finish_reason == expected[0].finish_reason
        assert found[0].logprobs == pytest.approx(expected[0].logprobs, abs=TOLERANCE)


def test_first_tokens_follow_the_policys_distribution(engine, policy):
    samples = 5000
    draws = [[sample_seed(s) for s in range(samples)]]
    (group,) = engine.generate([[5]], sampling(0.8, 1), draws)
    counts = torch.bincount(torch.tensor([c.token_ids[0] for c in group]), minlength=VOCABULARY)
    with torch.no_grad():
        expected = (policy(torch.tensor([[5]])).logits[0, -1, :VOCABULARY] / 0.8).softmax(-1)
    deviation = (expected * (1 - expected) / samples).sqrt()
    assert ((counts / samples - expected).abs() < 5 * deviation + 1e-3).all()


def test_the_next_generation_is_of_the_new_weights(started, engine, policy):
    other = started[1](seed=1)
    engine.load_weights(Policy(other).weights())
    groups = engine.generate(PROMPTS, sampling(), seeds_for(PROMPTS))
    assert error(other, PROMPTS, groups) < TOLERANCE
    assert error(policy, PROMPTS, groups) > 0.5


def test_a_head_is_updated_because_it_is_among_the_weights_also_where_it_is_tied(started, engine):
    other = started[1](seed=2)
    weights = dict(Policy(other).weights())
    engine.load_weights(weights.items())
    groups = engine.generate(PROMPTS, sampling(), seeds_for(PROMPTS))
    assert error(other, PROMPTS, groups) < TOLERANCE
    engine.load_weights(Policy(started[1]()).weights())
    del weights["lm_head.weight"]
    engine.load_weights(weights.items())
    groups = engine.generate(PROMPTS, sampling(), seeds_for(PROMPTS))
    assert error(other, PROMPTS, groups) > 0.5  # without it, the old one stays, and nothing says so


def test_weights_are_taken_over_one_at_a_time_and_copied(started, engine):
    other = started[1](seed=3)
    passed = []

    def weights():
        for name, tensor in other.state_dict().items():
            passed.append(name)
            yield name, tensor

    engine.load_weights(weights())
    assert passed == list(other.state_dict())
    before = engine.generate(PROMPTS, sampling(), seeds_for(PROMPTS))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    engine.llm.reset_prefix_cache()
    after = engine.generate(PROMPTS, sampling(), seeds_for(PROMPTS))
    assert [c.logprobs for group in after for c in group] == [c.logprobs for group in before for c in group]


def test_a_prompt_longer_than_a_cache_block_is_read_again_after_an_update(started, engine, monkeypatch):
    prompt = [2 + i % 50 for i in range(306)]  # blocks hold 128 tokens
    engine.generate([prompt], sampling(), [[1]])
    other = started[1](seed=4)
    engine.load_weights(Policy(other).weights())
    groups = engine.generate([prompt], sampling(), [[2, 3]])
    assert error(other, [prompt], groups) < TOLERANCE
    third = started[1](seed=5)
    monkeypatch.setattr(engine.llm, "reset_prefix_cache", lambda: True)
    engine.load_weights(Policy(third).weights())
    groups = engine.generate([prompt], sampling(), [[2, 3]])
    assert error(third, [prompt], groups) > 0.1  # without the reset, the old cache is used


def test_samples_repeat_by_their_seeds_and_differ_without(engine):
    seeds = seeds_for(PROMPTS, 8)
    first, again = (engine.generate(PROMPTS, sampling(), seeds) for _ in range(2))
    assert [c.token_ids for group in first for c in group] == [c.token_ids for group in again for c in group]
    for group in first:
        assert len({tuple(c.token_ids) for c in group}) > 5
    (alone,) = engine.generate([PROMPTS[2]], sampling(), [[seeds[2][5]]])
    assert alone[0].token_ids == first[2][5].token_ids


def test_padded_rows_of_the_head_are_never_drawn(engine, policy):
    with torch.no_grad():
        policy.lm_head.weight[VOCABULARY:] *= 50  # ids beyond the tokenizer, made tempting
    engine.load_weights(Policy(policy).weights())
    for temperature in (0.0, 1.0):
        groups = engine.generate(PROMPTS, sampling(temperature), seeds_for(PROMPTS, 8))
        assert max(t for group in groups for c in group for t in c.token_ids) < VOCABULARY
        assert error(policy, PROMPTS, groups) < TOLERANCE


def test_a_stop_id_ends_a_response_and_is_part_of_it(engine):
    stop = tuple(range(10))
    groups = engine.generate(PROMPTS, sampling(stop=stop), seeds_for(PROMPTS, 32))
    completions = [c for group in groups for c in group]
    assert {c.finish_reason for c in completions} == {"stop", "length"}
    for completion in completions:
        assert len(completion.logprobs) == len(completion.token_ids)
        if completion.finish_reason == "stop":
            assert completion.token_ids[-1] < 10 <= min(completion.token_ids[:-1], default=10)
        else:
            assert min(completion.token_ids) >= 10
            assert len(completion.token_ids) == 12


def test_the_models_own_end_of_sequence_is_no_stop_unless_it_is_named(engine):
    groups = engine.generate(PROMPTS, sampling(stop=(59,)), seeds_for(PROMPTS, 64))
    inside = [STOP in c.token_ids[:-1] for group in groups for c in group]
    assert any(inside)


def test_what_does_not_fit_is_refused(engine):
    with pytest.raises(ValueError, match="may take 401 tokens, and the vLLM engine was started for 400"):
        engine.generate([[2] * 389], sampling(), [[0]])
    with pytest.raises(ValueError, match="without tokens"):
        engine.generate([[2], []], sampling(), [[0], [1]])
    assert engine.generate([], sampling(), []) == []


def test_an_engine_leaves_the_process_as_it_was(tmp_path):
    folder = saved(random_policy(), tmp_path / "weights")
    torch.manual_seed(7)
    state = torch.get_rng_state()
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    engine = VllmEngine(folder, VOCABULARY, longest=64)
    engine.generate(PROMPTS, sampling(), seeds_for(PROMPTS))
    engine.load_weights(Policy(random_policy()).weights())
    engine.sleep()
    assert torch.equal(torch.get_rng_state(), state)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert torch.get_num_threads() == 1


def test_a_head_size_without_kernel_is_named_before_anything_starts(tmp_path):
    folder = saved(random_policy(head=16), tmp_path / "weights")
    with pytest.raises(ValueError, match="its heads have size 16; allowed: 32, 64, 80"):
        VllmEngine(folder, VOCABULARY, longest=64)


def test_too_little_memory_at_the_start_is_one_line_and_not_for_good(tmp_path):
    folder = saved(random_policy(), tmp_path / "weights")
    with pytest.raises(EngineError, match=r"too little memory to start: .*vllm_memory") as caught:
        VllmEngine(folder, VOCABULARY, longest=64, memory=0.999)
    assert "\n" not in str(caught.value)


def test_a_context_beyond_the_models_is_refused_for_good(tmp_path):
    folder = saved(random_policy(), tmp_path / "weights")
    with pytest.raises(ValueError, match=r"vLLM refuses to start: .*max_model_len"):
        VllmEngine(folder, VOCABULARY, longest=10_000)


def test_a_vllm_for_another_device_is_named(tmp_path):
    folder = saved(random_policy(), tmp_path / "weights")
    with pytest.raises(EngineError, match="asks for device cuda and engine vllm, and the vLLM installed here"):
        VllmEngine(folder, VOCABULARY, longest=64, device="cuda")


def test_a_failure_of_vllm_is_one_line_and_not_for_good(engine, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("worker\nis gone")

    monkeypatch.setattr(engine.llm, "generate", fail)
    with pytest.raises(EngineError, match="vLLM failed to generate: RuntimeError: worker is gone; start"):
        engine.generate(PROMPTS, sampling(), seeds_for(PROMPTS))
    monkeypatch.setattr(engine.llm, "collective_rpc", fail)
    with pytest.raises(EngineError, match="vLLM failed to take over the weights"):
        engine.load_weights([])


def test_bfloat16_is_near_float32_but_not_it(tmp_path):
    policy = random_policy()
    engine = VllmEngine(saved(policy, tmp_path / "weights"), VOCABULARY, longest=64, dtype="bfloat16")
    engine.load_weights(Policy(policy).weights())
    groups = engine.generate(PROMPTS, sampling(), seeds_for(PROMPTS))
    assert TOLERANCE < error(policy, PROMPTS, groups) < 1
