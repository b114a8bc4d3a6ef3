"""Settings, questions and trainers of a random policy, for the tests of what trains it."""

import copy
import json

import torch

from entropy_mechanism.config import RunConfig
from entropy_mechanism.rewards.outcome import Outcome
from entropy_mechanism.rl.batch import Sequences
from entropy_mechanism.rl.collect import Question
from entropy_mechanism.rl.loop import Hooks, Trainer
from entropy_mechanism.rl.policy import Policy
from entropy_mechanism.rl.update import MiniBatch
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine

TRAINING = {
    "steps": 4,
    "prompts": 4,
    "samples": 4,
    "updates": 2,
    "learning_rate": 1e-2,
    "max_response": 6,
    "validate_every": 2,
    "checkpoint_every": 2,
    "max_batches": 3,
}
QUESTIONS = [Question([2 + i % 30, 3 + i % 7], str(i)) for i in range(20)]
OBJECTIVES = {
    "ppo-clip": {"name": "ppo-clip"},
    "policy-gradient": {"name": "policy-gradient"},
    "clip-cov": {"name": "clip-cov", "fraction": 0.2, "covariance_low": 0.01, "covariance_high": 50},
    "kl-cov": {"name": "kl-cov", "fraction": 0.2},
    "cispo": {"name": "cispo"},
    "gspo": {"name": "gspo"},
}


def config_for(objective="ppo-clip", **training):
    settings = OBJECTIVES[objective] if isinstance(objective, str) else objective
    return RunConfig.model_validate(
        {
            "run": "test",
            "model": "m",
            "train_set": "t",
            "method": "x",
            "seed": 3,
            "advantage": {"estimator": training.pop("estimator", "grpo")},
            "objective": settings,
            "regularisation": training.pop("regularisation", {}),
            "aggregation": training.pop("aggregation", "token-mean"),
            "training": TRAINING | training,
        }
    )


def grade_even(completions, questions):
    """Right when the response's first token is even: half right, and something to learn."""
    return [Outcome.CORRECT if c.token_ids[0] % 2 == 0 else Outcome.WRONG for c in completions]


def trainer_for(policy, config, folder, rows, stop=lambda: False, grader=grade_even):
    engine = TransformersEngine(policy, 40)
    hooks = Hooks(row=rows.append, stop=stop, warn=lambda text: None)
    return Trainer(config, policy, engine, grader, QUESTIONS, QUESTIONS[:5], (1,), folder, hooks)


def without_times(rows):
    return json.dumps(
        [{k: v for k, v in row.items() if not k.startswith(("time/", "throughput/"))} for row in rows]
    )


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def mini_batch(policy):
    generator = torch.Generator().manual_seed(1)
    responses = [torch.randint(2, 40, (n,), generator=generator).tolist() for n in (3, 5, 1, 6, 2, 4, 4, 2)]
    sequences = Sequences([[2, 3]] * 4 + [[5, 6, 7]] * 4, responses)
    old = Policy(policy).measure(sequences, 1.0, 64, 1000).logprob_N
    old = old + 0.3 * torch.randn(len(old), generator=generator)
    advantage = torch.randn(8, generator=generator)[sequences.sequence_N]
    reference = old + 0.3 * torch.randn(len(old), generator=generator)
    return MiniBatch(sequences, old, advantage, reference)


DENSE = {
    "name": "clip-cov",
    "fraction": 0.2,
    "covariance_low": 0.01,
    "covariance_high": 50,
    "count_selected": False,
}


FULL_KL = {"name": "kl-cov", "fraction": 0.3, "penalty": "full", "coefficient": 0.7}


def perturbed(policy):
    """The policy that sampled, a step away."""
    other, generator = copy.deepcopy(policy), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return other


def log_distributions(policy, sequences):
    """log pi over the vocabulary before every response token, [N, V], each sequence read alone by transformers."""
    parts = []
    for prompt, response in zip(sequences.prompts, sequences.responses, strict=True):
        logits = policy(torch.tensor([prompt + response])).logits[0].double()
        parts.append(logits[len(prompt) - 1 : -1].log_softmax(-1))
    return torch.cat(parts)
