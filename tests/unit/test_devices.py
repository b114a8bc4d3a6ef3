"""The training step on each device and in each compute type, against float32 on the CPU.

Run on a GPU with `pytest -m gpu`. Tolerances: float32 on a GPU, 1e-4 nats and 1e-3 of a gradient's norm. bfloat16
anywhere, for this random model with its wide logits: log-probabilities 0.1 nats on average, entropies 0.05 nats,
gradients 5 % of their norm.
"""

import copy

import pytest
import torch
from random_policies import random_policy
from training_cases import OBJECTIVES, QUESTIONS, config_for, grade_even, mini_batch

from entropy_mechanism.config import Compute
from entropy_mechanism.rl.head import head_statistics
from entropy_mechanism.rl.loop import Hooks, Trainer
from entropy_mechanism.rl.policy import Policy
from entropy_mechanism.rl.ranks import join
from entropy_mechanism.rl.update import update
from entropy_mechanism.rollouts.engine import Sampling
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
ON_GPU = pytest.param("cuda", "float32", marks=pytest.mark.gpu)
HALF = [("cpu", "bfloat16"), pytest.param("cuda", "bfloat16", marks=pytest.mark.gpu)]
TOLERANCE = {"float32": (1e-4, 1e-4, 1e-3), "bfloat16": (0.1, 0.05, 0.05)}
"""By compute type: mean |log-probability| and |entropy| in nats, and error of a gradient relative to its norm."""


def policy_on(device, dtype="float32", model=None):
    with join(Compute(device=device)) as ranks:
        return Policy(model or random_policy(), dtype, ranks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", DEVICES)
def test_the_head_of_half_precision_inputs_is_exact_for_these_inputs(device, dtype):
    """Rounding the inputs is all the error there is: products and statistics are float32."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(50, 64, generator=generator).to(dtype)
    weight = torch.randn(3000, 64, generator=generator).to(dtype)
    target = torch.randint(0, 3000, (50,), generator=generator)
    exact = (hidden.double() @ weight.double().T).log_softmax(-1)
    found = head_statistics(hidden.to(device), weight.to(device), target.to(device), chunk=16)
    expected = exact.gather(1, target[:, None]).squeeze(1)
    torch.testing.assert_close(found[0].double().cpu(), expected, atol=2e-4, rtol=1e-5)
    torch.testing.assert_close(found[1].double().cpu(), -(exact.exp() * exact).sum(1), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("device", "dtype"), [ON_GPU, *HALF])
def test_log_probabilities_and_entropies_are_those_of_float32_on_the_cpu(device, dtype):
    sequences = mini_batch(random_policy()).sequences
    expected = policy_on("cpu").measure(sequences, 0.8, 16, 40)
    found = policy_on(device, dtype).measure(sequences, 0.8, 16, 40)
    logprob, entropy, _ = TOLERANCE[dtype]
    assert (found.logprob_N - expected.logprob_N).abs().mean() < logprob
    assert (found.entropy_N - expected.entropy_N).abs().mean() < entropy
    assert found.logprob_N.dtype == found.entropy_N.dtype == torch.float32


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("device", "dtype"), [ON_GPU, *HALF])
def test_the_gradient_is_that_of_float32_on_the_cpu(device, dtype, objective):
    gradients, selected = [], []
    for place, kind in (("cpu", "float32"), (device, dtype)):
        policy = policy_on(place, kind)
        settings = OBJECTIVES[objective] | ({"policy": "old"} if "cov" in objective else {})
        config = config_for(settings, gradient_clip=1e9, micro_batch_tokens=20)
        optimizer = torch.optim.SGD(policy.model.parameters(), lr=0.0)
        batch = mini_batch(random_policy())
        # Ratios as in training, close to 1: a ratio of 2 would double the rounding of its token.
        batch.old_logprob_N.copy_(policy_on("cpu").measure(batch.sequences, 1.0, 64, 1000).logprob_N - 0.01)
        _, tokens = update(policy, optimizer, batch, config, (1,))
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in policy.model.parameters()]))
        selected.append(tokens.selected)
        assert {p.grad.dtype for p in policy.model.parameters()} == {torch.float32}
    if objective == "kl-cov":
        assert torch.equal(*selected)
    if objective != "gspo" or dtype == "float32":  # its clip of 4e-4 is finer than bfloat16
        error = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
        assert error < TOLERANCE[dtype][2]


@pytest.mark.parametrize(("device", "dtype"), [("cpu", "float32"), ON_GPU, *HALF])
def test_training_changes_float32_weights_by_steps_too_small_for_half_precision(device, dtype, tmp_path):
    """A step of 5e-7, the paper's, is lost where weights are bfloat16."""
    model, rows = random_policy(), []
    before = copy.deepcopy(model.state_dict())
    config = config_for("kl-cov", learning_rate=5e-7, steps=2, filter_groups=False, dtype=dtype)
    with join(Compute(device=device)) as ranks:
        model.to(ranks.device)
        hooks = Hooks(row=rows.append, stop=lambda: False, warn=print)
        engine = TransformersEngine(model, 40, dtype=dtype)
        places = (QUESTIONS, QUESTIONS[:5], (1,), tmp_path, hooks)
        Trainer(config, model, engine, grade_even, *places, ranks=ranks).train()
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        change = (value.cpu() - before[name]).abs().max()
        assert 0 < change < 1e-5, name
    assert all(row["policy/skipped_updates"] == 0 for row in rows[:-1])


@pytest.mark.parametrize(("device", "dtype"), [ON_GPU, *HALF])
def test_the_engine_samples_from_the_policy_that_the_trainer_reads(device, dtype):
    policy = policy_on(device, dtype)
    prompts, seeds = [[2, 3], [5, 6, 7]], [list(range(20)), list(range(20, 40))]
    engine = TransformersEngine(policy.model, 40, dtype=dtype)
    groups = engine.generate(prompts, Sampling(1.0, 8, (1,)), seeds)
    rows = [(prompt, c) for prompt, group in zip(prompts, groups, strict=True) for c in group]
    sequences = type(mini_batch(random_policy()).sequences)([p for p, _ in rows], [c.token_ids for _, c in rows])
    found = policy.measure(sequences, 1.0, 64, 1000).logprob_N
    engines = torch.tensor([value for _, c in rows for value in c.logprobs])
    assert (found - engines).abs().mean() < TOLERANCE[dtype][0]


@pytest.mark.gpu
def test_the_head_of_a_real_vocabulary_stays_within_its_memory_on_a_gpu():
    tokens, vocabulary, width = 8192, 151_936, 896
    hidden = torch.randn(tokens, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(vocabulary, width, device="cuda", requires_grad=True)
    target = torch.randint(0, vocabulary, (tokens,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    base = torch.cuda.memory_allocated()
    head_statistics(hidden, weight, target, chunk=512)[0].mean().backward()
    peak = (torch.cuda.max_memory_allocated() - base) / 1e9
    naive = 3 * tokens * vocabulary * 4 / 1e9  # logits, log-softmax and their gradient
    print(f"head at {tokens} x {vocabulary} x {width}: {peak:.2f} GB above the weights; naive {naive:.1f} GB")
    assert peak < 2.5
