"""A valid experiment, and a way to change one value of it."""

import copy

VALID = {
    "title": "a valid experiment",
    "data": {
        "train": {"kind": "arithmetic", "split": "train", "operands": [2, 3], "problems": 100},
        "validation": {"kind": "arithmetic", "split": "validation", "operands": [2, 3], "problems": 20},
        "hard": {"kind": "arithmetic", "split": "test", "operands": [4, 4], "problems": 20},
    },
    "validation": "validation",
    "models": {
        "nano": {"kind": "tiny", "layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "warmup": {"steps": 5}},
        "micro": {"kind": "tiny", "layers": 2, "width": 32, "heads": 2, "kv_heads": 2, "warmup": {"steps": 5}},
    },
    "methods": {
        "grpo": {"objective": {"name": "ppo-clip"}, "training": {"weight_decay": 0.1}},
        "clip-cov": {"extends": "grpo", "objective": {"name": "clip-cov"}},
        "kl-cov": {"extends": "grpo", "objective": {"name": "kl-cov", "fraction": 0.02}},
        "kl-cov-strong": {"extends": "kl-cov", "objective": {"coefficient": 10.0}},
        "on-policy": {"objective": {"name": "policy-gradient"}, "training": {"updates": 1}},
    },
    "training": {
        "steps": 6,
        "prompts": 8,
        "samples": 4,
        "updates": 2,
        "learning_rate": 1e-3,
        "max_response": 24,
    },
    "runs": [
        {"models": ["nano"], "train_sets": ["train"], "methods": ["grpo", "kl-cov", "on-policy"], "seeds": [1, 2]},
        {"models": ["micro"], "train_sets": ["train"], "methods": ["grpo"], "seeds": [1]},
    ],
    "evaluation": {
        "max_response": 24,
        "benchmarks": {"hard": {"data": "hard", "protocols": ["greedy", "pass@4"]}},
    },
    "figures": {"fig01": {"methods": ["grpo"]}, "fig11": {}},
    "tables": {"table2": {"models": ["nano"]}},
}

REMOVED = object()


def edited(path, value):
    """VALID with the value at a dotted path replaced, added or, if REMOVED, taken away."""
    raw = copy.deepcopy(VALID)
    *parents, last = path.split("/")
    section = raw
    for part in parents:
        section = section[int(part) if part.isdigit() else part]
    if value is REMOVED:
        del section[last]
    else:
        section[int(last) if last.isdigit() else last] = value
    return raw
