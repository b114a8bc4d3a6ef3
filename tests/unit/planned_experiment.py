"""An experiment of two models and four methods, for the tests of what is planned from it."""

TINY = {"kind": "tiny", "layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "warmup": {"steps": 5}}
ADD = {"kind": "arithmetic", "split": "train", "operands": [2, 3], "problems": 50}
RAW = {
    "title": "two models, four methods",
    "data": {
        "train": ADD,
        "long": ADD | {"operands": [4, 5]},
        "validation": ADD | {"split": "validation"},
        "test": ADD | {"split": "test"},
        "spare": ADD,
    },
    "validation": "validation",
    "models": {"nano": TINY, "micro": TINY, "idle": TINY},
    "methods": {
        "grpo": {"objective": {"name": "ppo-clip", "clip_high": 0.3}, "training": {"samples": 6}},
        "kl-cov": {"extends": "grpo", "objective": {"name": "kl-cov", "coefficient": 1.0}},
        "on-policy": {
            "extends": "grpo", "objective": {"name": "policy-gradient"},
            "training": {"updates": 1, "record_tokens_every": 1},
        },
        "idle": {"extends": "kl-cov"},
    },
    "training": {
        "steps": 4, "prompts": 8, "samples": 4, "updates": 2, "learning_rate": 0.001, "max_response": 9
    },
    "runs": [
        {"models": ["nano"], "train_sets": ["train"], "methods": ["grpo", "kl-cov"], "seeds": [1, 2]},
        {"models": ["nano", "micro"], "train_sets": ["train"], "methods": ["grpo"], "seeds": [1]},
        {"models": ["nano"], "train_sets": ["long"], "methods": ["on-policy"], "seeds": [1, 1]},
    ],
    "evaluation": {"max_response": 9, "benchmarks": {"easy": {"data": "test", "protocols": ["greedy"]}}},
    "figures": {"fig01": {}, "fig02": {"models": ["micro"]}, "fig11": {"methods": ["kl-cov", "on-policy"]}},
    "tables": {"table1": {"train_sets": ["long"]}, "table2": {"methods": ["grpo"]}},
}  # fmt: skip
NAMES = [
    "nano--train--grpo--s1",
    "nano--train--grpo--s2",
    "nano--train--kl-cov--s1",
    "nano--train--kl-cov--s2",
    "micro--train--grpo--s1",
    "nano--long--on-policy--s1",
]


def code_too(raw):
    """A second group of runs, on programs; a third that is not evaluated."""
    raw["methods"]["plain"] = {"objective": {"name": "ppo-clip"}}
    programs = {"kind": "programs", "split": "train", "operations": [2, 2], "problems": 50}
    raw["data"] |= {
        "code": programs,
        "code-validation": programs | {"split": "validation"},
        "code-test": programs | {"split": "test"},
    }
    raw["evaluation"]["benchmarks"]["code"] = {"data": "code-test", "protocols": ["greedy"]}
    raw["runs"] = [
        {"models": ["nano"], "train_sets": ["train"], "methods": ["grpo"], "seeds": [1], "benchmarks": ["easy"]},
        {
            "models": ["nano"], "train_sets": ["code"], "methods": ["grpo"], "seeds": [1],
            "validation": "code-validation", "benchmarks": ["code"],
        },
        {"models": ["nano"], "train_sets": ["long"], "methods": ["kl-cov"], "seeds": [1], "benchmarks": []},
    ]  # fmt: skip
    raw["figures"], raw["tables"] = {}, {"table2": {}}
