"""What the tests of several ranks compute. Run as a program it is one rank, and the main one writes results."""

import sys
from pathlib import Path

import torch
from accelerate import init_empty_weights
from random_policies import random_policy
from test_prime import SEQUENCES
from test_prime import TRAINING as PRIME_TRAINING
from torch.distributed.fsdp import CPUOffloadPolicy
from training_cases import OBJECTIVES, QUESTIONS, config_for, grade_even, mini_batch, perturbed
from transformers import PreTrainedModel

from entropy_mechanism.config import Compute, RewardModel
from entropy_mechanism.rl.loop import Hooks, Trainer
from entropy_mechanism.rl.policy import Policy, recompute_activations
from entropy_mechanism.rl.prime import ImplicitRewardModel
from entropy_mechanism.rl.ranks import Ranks, join
from entropy_mechanism.rl.update import update
from entropy_mechanism.rollouts.transformers_engine import TransformersEngine

PLACES = {
    "none": {"sharding": "none"},
    "full": {"sharding": "full"},
    "full, in main memory": {"sharding": "full", "offload": "cpu"},
}
"""`Compute` of two ranks; activations are recomputed in the update of that name."""
DENSE = {"covariance_low": 1e-3, "covariance_high": 50, "count_selected": False}
UPDATES = {name: (settings, {"micro_batch_tokens": 8}) for name, settings in OBJECTIVES.items()}
UPDATES |= {
    "one micro-batch for two ranks": (OBJECTIVES["kl-cov"], {"micro_batch_tokens": 10_000}),
    "an odd number of micro-batches": (OBJECTIVES["clip-cov"], {"micro_batch_tokens": 20}),
    "detached tokens left out of the mean": (OBJECTIVES["clip-cov"] | DENSE, {"micro_batch_tokens": 8}),
    "selection by micro-batch": (
        OBJECTIVES["clip-cov"] | {"scope": "microbatch", "min_tokens": 1, "covariance_low": -50.0},
        {"micro_batch_tokens": 16},
    ),
    "mean by micro-batch": (OBJECTIVES["ppo-clip"], {"micro_batch_tokens": 16, "aggregation": "micro-batch-mean"}),
    "entropy bonus and reference KL": (
        OBJECTIVES["ppo-clip"],
        {"micro_batch_tokens": 8, "regularisation": {"entropy": 0.1, "reference_kl": 0.1}},
    ),
    "full kl-cov": (
        OBJECTIVES["kl-cov"] | {"penalty": "full", "coefficient": 5.0},
        {"micro_batch_tokens": 20},
    ),
    "tied": (OBJECTIVES["kl-cov"], {"micro_batch_tokens": 8}),
    "activations computed again": (OBJECTIVES["kl-cov"], {"micro_batch_tokens": 8}),
    "not finite": (OBJECTIVES["ppo-clip"], {"micro_batch_tokens": 20}),
}
RUNS = {
    "clip-cov": ("clip-cov", {}),
    "prime with a reference": ("kl-cov", {"estimator": "prime", "regularisation": {"reference_kl": 0.1}}),
    "full kl-cov": (OBJECTIVES["kl-cov"] | {"penalty": "full", "coefficient": 5.0}, {}),
}


def model_for(ranks: Ranks, sharding: str, tied: bool = False) -> PreTrainedModel:
    """The base model; without weights where the main rank sends them."""
    if sharding == "none" or ranks.main:
        return random_policy(tied)
    with init_empty_weights(include_buffers=False):
        model = random_policy(tied)
    model.tie_weights()
    return model


def one_update(name: str, ranks: Ranks, sharding: str) -> dict:
    """Metrics, selected tokens and weights after one update."""
    objective, changes = UPDATES[name]
    batch, model = mini_batch(random_policy()), model_for(ranks, sharding, name == "tied")
    if name == "activations computed again" and ranks.size > 1:
        recompute_activations(model)
    if name == "not finite":
        batch.advantage_N[3] = torch.inf  # in a micro-batch of one of the ranks
    policy = Policy(model, ranks=ranks, sharded=sharding == "full")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    frozen = perturbed(model_for(ranks, sharding, name == "tied")).requires_grad_(False)
    old = Policy(frozen, ranks=ranks, sharded=sharding == "full")
    config = config_for(objective, **changes)
    metrics, tokens = update(policy, optimizer, batch, config, (1, 2), old_policy=old)
    return {"metrics": metrics, "selected": tokens.selected, "logprob": tokens.logprob, "weights": whole(policy)}


def reward_model_updates(ranks: Ranks, sharding: str) -> dict:
    """Metrics of three updates of PRIME's reward model and the rewards after them."""
    training = PRIME_TRAINING.model_copy(update={"micro_batch_tokens": 7})
    settings = RewardModel(learning_rate=1e-3, beta=1.0)
    model = ImplicitRewardModel(model_for(ranks, sharding), settings, training, ranks, sharding == "full")
    right = torch.tensor([1.0, 0.0, 0.0, 1.0])
    metrics = [model.update(SEQUENCES, right) for _ in range(3)]
    return {"metrics": metrics[-1], "rewards": model.rewards(SEQUENCES)}


def whole_run(name: str, ranks: Ranks, sharding: str, folder: Path, steps: int = 4) -> dict:
    """Rows and final weights of a short training, from the newest checkpoint in `folder` on."""
    objective, changes = RUNS[name]
    offload = "cpu" if ranks.offload else "none"
    compute = {"ranks": ranks.size, "sharding": sharding, "offload": offload, "device": "cpu"}
    every = {"record_tokens_every": 1, "measure_entropy_change_every": 1}
    config = config_for(objective, steps=steps, micro_batch_tokens=40, **every, **changes)
    config = config.model_copy(update={"compute": Compute(**compute)})
    model, rows = model_for(ranks, sharding), []
    engine = TransformersEngine(random_policy() if sharding == "full" else model, 40)
    hooks = Hooks(row=rows.append, stop=lambda: False, warn=print)
    places = (QUESTIONS, QUESTIONS[:5], (1,), folder / "checkpoints", hooks)
    trainer = Trainer(config, model, engine, grade_even, *places, ranks=ranks)
    first = trainer.resume()
    trainer.train()
    held = sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in trainer.policy.model.parameters())
    (folder.parent / f"held-{ranks.index}").write_text(str(held))
    return {"first": first, "rows": rows, "weights": whole(trainer.policy)}


def whole(policy: Policy) -> torch.Tensor:
    """All weights, flat, on every rank; those of an unwrapped policy in the order of its parameters."""
    return torch.cat([tensor.detach().flatten() for _, tensor in policy.weights()])


def all_cases(ranks: Ranks, sharding: str, folder: Path) -> dict:
    """Results of every case by name."""
    results = {("update", name): one_update(name, ranks, sharding) for name in UPDATES}
    results["reward model"] = reward_model_updates(ranks, sharding)
    for name in RUNS:
        results["run", name] = whole_run(name, ranks, sharding, folder / name)
    if sharding == "full" and ranks.size > 1:
        policy = Policy(random_policy(), ranks=ranks, sharded=True)
        groups = [part._get_fsdp_state()._fsdp_param_group for part in policy.model.model.layers]
        results["offloaded"] = [isinstance(group.offload_policy, CPUOffloadPolicy) for group in groups]
    half = folder / "begun by one"  # where the test has trained half of it
    if half.is_dir():
        results["resumed"] = whole_run("prime with a reference", ranks, sharding, half)
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Compute(device="cpu", ranks=2, **PLACES[sys.argv[1]])
    with join(place) as several:
        found = all_cases(several, place.sharding, Path(sys.argv[2]))
        if several.main:
            torch.save(found, Path(sys.argv[2]) / "results.pt")
