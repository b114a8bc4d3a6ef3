"""Changes of `VALID` that make it wrong: path, value, and what the message must contain."""

import math

from valid_experiment import REMOVED, VALID

WRONG = {
    # unknown keys, at every level
    "key at the top": ("modles", {}, ": modles: unknown key; allowed: title, data,", "did you mean 'models'?"),
    "key of a data set": ("data/train/sed", 1, ": data.train.sed: unknown key;", "did you mean 'seed'?"),
    "key of a model": ("models/nano/layer", 1, ": models.nano.layer: unknown key;", "did you mean 'layers'?"),
    "key of a warm-up": ("models/nano/warmup/stepz", 5, ": models.nano.warmup.stepz: unknown", "mean 'steps'?"),
    "key of a teacher": ("models/nano/warmup/teacher", {"sead": 1}, ": models.nano.warmup.teacher.sead: unknown"),
    "key of a method": ("methods/grpo/extend", "x", ": methods.grpo.extend: unknown key", "mean 'extends'?"),
    "key of an advantage": ("methods/grpo/advantage", {"eps": 1}, ": methods.grpo.advantage.eps: unknown key"),
    "key of an objective": (
        "methods/kl-cov/objective/coeficient",
        1.0,
        ": methods.kl-cov.objective.coeficient: unknown key; allowed: ",
        "did you mean 'coefficient'?",
    ),
    "key of a method's training": ("methods/grpo/training/step", 1, ": methods.grpo.training.step: unknown key"),
    "key of the training": ("training/learningrate", 1, ": training.learningrate: unknown", "'learning_rate'?"),
    "key of a run group": (
        "runs/0/seed",
        [1],
        ": runs[0].seed: unknown key; allowed: models, train_sets, methods,",
    ),
    "key of the evaluation": ("evaluation/temprature", 1.0, ": evaluation.temprature: unknown", "'temperature'?"),
    "key of a benchmark": ("evaluation/benchmarks/hard/k", 4, ": evaluation.benchmarks.hard.k: unknown key"),
    "key of the analysis": ("analysis", {"resample": 5}, ": analysis.resample: unknown key", "'resamples'?"),
    "key of a figure": ("figures/fig01/runs", ["x"], ": figures.fig01.runs: unknown key; allowed: models,"),
    "key of a table": ("tables/table2/method", [], ": tables.table2.method: unknown key", "'methods'?"),
    "parameter of another objective": (
        "methods/kl-cov/objective/covariance_low",
        0.2,
        ": methods.kl-cov.objective.covariance_low: not a key of kl-cov but of clip-cov; allowed: ",
    ),
    # engines
    "another engine": ("compute", {"nano": {"engine": "vlm"}}, ": compute.nano.engine: found 'vlm'; ", "'vllm'"),
    "ranks that do not share out": (
        "compute",
        {"nano": {"engine": "vllm", "ranks": 4, "tensor_parallel": 3}},
        ": compute.nano.tensor_parallel: found 3; allowed: divisors of ranks (4)",
    ),
    "vllm's setting without vllm": (
        "compute",
        {"nano": {"vllm_memory": 0.5}},
        ": compute.nano.vllm_memory: found 0.5; it is for engine vllm, not transformers",
    ),
    "no cap": ("training/importance_cap", 0, ": training.importance_cap: found 0; allowed: "),
    # missing
    "no training": ("training", REMOVED, ": training: required key is missing"),
    "no steps": ("training/steps", REMOVED, ": training.steps: required key is missing"),
    "no objective": ("methods/grpo", {}, ": methods.grpo.objective: required key is missing"),
    "no objective name": (
        "methods/grpo/objective",
        {"clip_low": 0.1},
        ": methods.grpo.objective.name: required key is missing; allowed: policy-gradient, ppo-clip,",
    ),
    "no kind": ("data/train/kind", REMOVED, ": data.train.kind: required key is missing"),
    # wrong types
    "text for a number": ("training/steps", "six", ": training.steps: found 'six'; allowed: a whole number"),
    "number in quotes": ("training/steps", "6", ": training.steps: found '6'; allowed: a whole number"),
    "fraction for a count": ("training/steps", 6.5, ": training.steps: found 6.5; allowed: a whole number"),
    "truth for a count": ("training/steps", True, ": training.steps: found true; allowed: a whole number"),
    "text for a rate": (
        "training/learning_rate",
        "fast",
        ": training.learning_rate: found 'fast'; allowed: a number",
    ),
    "number for truth": ("training/filter_groups", 1, ": training.filter_groups: found 1; allowed: true or false"),
    "number for text": ("title", 5, ": title: found 5; allowed: text"),
    "nothing for a section": (
        "training",
        None,
        ": training: found nothing; allowed: keys steps, prompts, samples,",
    ),
    "nothing for a filter": (
        "figures/fig11",
        None,
        ": figures.fig11: found nothing; allowed: keys models, train_sets, methods, code, inputs, or",
    ),
    "list for a section": ("training", [1], ": training: found a list; allowed: keys steps,"),
    "list for names": ("methods", ["grpo"], ": methods: found a list; allowed: names with settings below them"),
    "text for an objective": (
        "methods/grpo/objective",
        "ppo-clip",
        ": methods.grpo.objective: found 'ppo-clip'; ",
    ),
    "text for a method": (
        "methods/grpo",
        "x",
        ": methods.grpo: found 'x'; allowed: keys extends, preset, advantage, ",
    ),
    "text for a list": ("runs/0/methods", "grpo", ": runs[0].methods: found 'grpo'; allowed: a list"),
    "text for operands": ("data/train/operands", "2-3", ": data.train.operands: found '2-3'; allowed: a list"),
    "one operand": ("data/train/operands", [2], ": data.train.operands: more entries are needed, found 1"),
    "three operands": (
        "data/train/operands",
        [2, 3, 4],
        ": data.train.operands: found a list; allowed: 2 entries",
    ),
    "text among operands": (
        "data/train/operands",
        [2, "x"],
        ": data.train.operands[1]: found 'x'; allowed: a whole",
    ),
    "wrong type in an objective": (
        "methods/kl-cov/objective/fraction",
        "all",
        ": methods.kl-cov.objective.fraction: found 'all'; allowed: a number",
    ),
    "wrong type in a method's training": (
        "methods/on-policy/training/updates",
        "one",
        ": methods.on-policy.training.updates: found 'one'; allowed: a whole number",
    ),
    # impossible values
    "zero steps": ("training/steps", 0, ": training.steps: found 0; allowed: 1 or more"),
    "no learning": ("training/learning_rate", 0, ": training.learning_rate: found 0; allowed: more than 0"),
    "fraction above one": (
        "methods/kl-cov/objective/fraction",
        2,
        ".objective.fraction: found 2.0; allowed: at most the whole",
    ),
    "all as a forecast": (
        "analysis",
        {"forecast_fractions": [1.0]},
        ": analysis.forecast_fractions[0]: found 1.0; ",
    ),
    "a long text": (
        "validation",
        "x" * 900,
        f": validation: '{'x' * 60}…' is not defined in data; allowed: train,",
    ),
    "NaN": ("training/learning_rate", math.nan, ": training.learning_rate: found nan; allowed: a finite number"),
    "infinity": ("training/temperature", math.inf, ": training.temperature: found inf; allowed: a finite number"),
    "infinite coefficient": (
        "methods/kl-cov/objective/coefficient",
        math.inf,
        ".coefficient: found inf; allowed: a fin",
    ),
    "NaN covariance": (
        "methods/clip-cov/objective/covariance_low",
        math.nan,
        ".covariance_low: found nan; allowed: a f",
    ),
    "negative seed": ("runs/0/seeds", [-1], ": runs[0].seeds[0]: found -1; allowed: 0 or more"),
    "no seeds": ("runs/0/seeds", [], ": runs[0].seeds: found a list; allowed: 1 or more entries"),
    "no runs": ("runs", [], ": runs: found a list; allowed: 1 or more entries"),
    "no benchmarks": (
        "evaluation/benchmarks",
        {},
        ": evaluation.benchmarks: found keys and values; allowed: 1 or more",
    ),
    "operands reversed": ("data/train/operands", [3, 2], ": data.train.operands: range reversed: found [3, 2]"),
    "warm-up operands reversed": (
        "models/nano/warmup/operands",
        [6, 2],
        ": models.nano.warmup.operands: range reversed",
    ),
    "teacher's range reversed": (
        "models/nano/warmup/teacher",
        {"unreliable": [0.5, 0.1]},
        ": models.nano.warmup.teacher.unreliable: range reversed",
    ),
    "one operand a problem": (
        "data/train/operands",
        [1, 2],
        ": data.train.operands[0]: found 1; allowed: 2 or more",
    ),
    "an even window": ("analysis", {"smoothing": 4}, ": analysis.smoothing: found 4; allowed: odd numbers"),
    "no forecast of Fig 5": (
        "analysis",
        {"forecast_fractions": [0.2]},
        ": analysis.forecast_fractions: found [0.2]; allowed: lists with 0.15",
    ),
    "tested on what was trained on": (
        "evaluation/benchmarks/hard/data",
        "train",
        ": evaluation.benchmarks.hard.data: 'train' may hold problems of 'train', which runs are trained on",
    ),
    "tested on the hub set that was trained on": (
        "data",
        {name: {"kind": "hub", "source": "amc23" if name == "train" else "amc"} for name in VALID["data"]},
        ": validation: 'validation' may hold problems of 'train', which runs are trained on",
    ),
    "source": (
        "data/hard",
        {"kind": "hub", "source": "gsm8k-tset"},
        ": data.hard.source: found 'gsm8k-tset'; allowed: dapo-math,",
        "did you mean 'gsm8k-test'?",
    ),
    "key of generated data in a hub set": (
        "data/hard",
        {"kind": "hub", "source": "amc", "operands": [2, 3]},
        ": data.hard.operands: not a key of hub but of arithmetic; allowed: kind, source,",
    ),
    "the paper's rows of another source": (
        "data/train",
        {"kind": "hub", "source": "dapo-math", "paper_rows": True},
        ": data.train.paper_rows: found true with source 'dapo-math'; allowed: only with source dapo-math-raw",
    ),
    "prompt style": ("data/hard/prompt", "paper-evil", ": data.hard.prompt: found 'paper-evil';", "'paper-eval'?"),
    "no stop token": ("training/stop", [], ": training.stop: found a list; allowed: 1 or more entries"),
    "empty stop token": (
        "evaluation/stop",
        [""],
        ": evaluation.stop[0]: found ''; allowed: text that is not empty",
    ),
    "repository of a model": (
        "models/nano",
        {"kind": "hub", "id": "a b"},
        ": models.nano.id: found 'a b'; allowed: ",
    ),
    "width and heads": (
        "models/nano/heads",
        3,
        ": models.nano.heads: width (32) must be a multiple of twice the heads (3)",
    ),
    "heads and kv_heads": (
        "models/nano/kv_heads",
        3,
        ": models.nano.kv_heads: heads (2) must be a multiple of kv_h",
    ),
    "clip bounds reversed": (
        "methods/grpo/objective",
        {"name": "ppo-clip", "clip_low": 0.4, "clip_high": 0.2},
        ": methods.grpo.objective.clip_low: clip bounds reversed: clip_low (0.4) must not exceed clip_high (0.2)",
    ),
    "clip bounds of clip-cov reversed": (
        "methods/clip-cov/objective/clip_high",
        0.5,
        ": methods.clip-cov.objective.clip_low: clip bounds reversed",
    ),
    "covariance band reversed": (
        "methods/clip-cov/objective",
        {"name": "clip-cov", "covariance_low": 5.0, "covariance_high": 1.0},
        ": methods.clip-cov.objective.covariance_low: band reversed: covariance_low (5.0) must be below",
    ),
    "group of one": ("training/samples", 1, ": training.samples: found 1; allowed for method 'grpo': 2 or more"),
    "group of one in a method": (
        "methods/kl-cov/training",
        {"samples": 1},
        ": methods.kl-cov.training.samples: found 1; allowed for method 'kl-cov': 2 or more",
    ),
    "prompts not shared out": (
        "training/prompts",
        9,
        ": training.prompts: found 9; allowed for method 'grpo': a multiple of updates (2)",
    ),
    "several updates of a policy gradient": (
        "methods/on-policy/training/updates",
        2,
        ": methods.on-policy.training.updates: found 2; allowed for method 'on-policy': 1",
    ),
    "several updates of a policy gradient from the experiment": (
        "methods/on-policy/training",
        None,
        ": training.updates: found 2; allowed for method 'on-policy': 1",
    ),
    # unknown names
    "validation": (
        "validation",
        "validatoin",
        ": validation: 'validatoin' is not defined in data;",
        "'validation'?",
    ),
    "method of a run": (
        "runs/0/methods",
        ["grpo", "klcov"],
        ": runs[0].methods[1]: 'klcov' is not defined in methods; allowed: grpo, clip-cov,",
        "did you mean 'kl-cov'?",
    ),
    "model of a run": (
        "runs/1/models",
        ["mico"],
        ": runs[1].models[0]: 'mico' is not defined in",
        "mean 'micro'?",
    ),
    "data of a run": ("runs/0/train_sets", ["trian"], ": runs[0].train_sets[0]: 'trian' is not", "mean 'train'?"),
    "data of a benchmark": (
        "evaluation/benchmarks/hard/data",
        "math500",
        ": evaluation.benchmarks.hard.data: 'math500' is not defined in data; allowed: train, validation, hard",
    ),
    "protocol": (
        "evaluation/benchmarks/hard/protocols",
        ["greedi"],
        ": evaluation.benchmarks.hard.protocols[0]: found 'greedi'; allowed: greedy, avg@k, pass@k or maj@k",
    ),
    "first protocol": (
        "evaluation/benchmarks/hard/protocols",
        ["pass@4"],
        ".hard.protocols[0]: the first protocol enters the averages: found 'pass@4'; allowed: greedy or avg@k",
    ),
    "average of fewer": (
        "evaluation/benchmarks/hard/protocols",
        ["greedy", "avg@4", "pass@8"],
        ": evaluation.benchmarks.hard.protocols[1]: found 'avg@4'",
        "allowed: avg@8",
    ),
    "protocol twice": (
        "evaluation/benchmarks/hard/protocols",
        ["greedy", "greedy"],
        ": evaluation.benchmarks.hard.protocols[1]: 'greedy' is written twice",
    ),
    "figure": (
        "figures",
        {"fig1": {}},
        ": figures: found 'fig1'; allowed: fig01, fig02,",
    ),
    "table": ("tables", {"tabel1": {}}, ": tables: found 'tabel1'; allowed: table1, table2", "mean 'table1'?"),
    "method of a figure": (
        "figures/fig01/methods",
        ["gpro"],
        ": figures.fig01.methods[0]: 'gpro' is not in any of the runs; allowed: grpo, kl-cov, on-policy",
        "did you mean 'grpo'?",
    ),
    "method of a table that is defined but never run": (
        "tables/table2/methods",
        ["clip-cov"],
        ": tables.table2.methods[0]: 'clip-cov' is not in any of the runs;",
    ),
    "figure without runs": (
        "figures/fig11",
        {"models": ["micro"], "methods": ["kl-cov"]},
        ": figures.fig11: no run has this combination of models, train_sets and methods",
    ),
    "table without runs": ("tables/table2", {"methods": []}, ": tables.table2: no run has this combination"),
    "Fig 8 without an on-policy run": (
        "figures",
        {"fig08": {"methods": ["grpo", "kl-cov"]}},
        ": figures.fig08: found grpo, kl-cov; allowed: with a strictly on-policy method (training.updates: 1)",
    ),
    "Fig 8 without token records": (
        "figures",
        {"fig08": {}},
        ": figures.fig08: is drawn from token records, and no on-policy run it shows keeps any; set "
        "methods.on-policy.training.record_tokens_every to 1",
    ),
    "Table 1 without token records": (
        "tables",
        {"table1": {"methods": ["grpo"]}},
        ": tables.table1: is drawn from token records, and no run it shows keeps any; set "
        "methods.grpo.training.record_tokens_every to 1",
    ),
    "objective": (
        "methods/kl-cov/objective/name",
        "klcov",
        ": methods.kl-cov.objective.name: found 'klcov'; allowed: policy-gradient, ppo-clip, cispo, ",
        "did you mean 'kl-cov'?",
    ),
    "advantage": (
        "methods/grpo/advantage",
        {"estimator": "gae"},
        ".advantage.estimator: found 'gae'; allowed: grpo",
    ),
    "kind of data": (
        "data/train/kind",
        "arithmetics",
        ": data.train.kind: found 'arithmetics'; allowed: arithmetic",
    ),
    "kind of model": (
        "models/nano/kind",
        "tinny",
        ": models.nano.kind: found 'tinny'; allowed: tiny",
        "mean 'tiny'?",
    ),
    "extends": (
        "methods/kl-cov/extends",
        "gpro",
        ": methods.kl-cov.extends: 'gpro' is not another method; allowed: grpo, clip-cov,",
        "did you mean 'grpo'?",
    ),
    "extends itself": ("methods/grpo/extends", "grpo", ": methods.grpo.extends: 'grpo' is not another method"),
    "extends in a circle": (
        "methods/grpo/extends",
        "kl-cov-strong",
        "methods extend each other in a circle: grpo -> kl-cov-strong -> kl-cov -> grpo",
    ),
    "extends a list": (
        "methods/kl-cov/extends",
        ["grpo"],
        ": methods.kl-cov.extends: a list is not another method",
    ),
    # names
    "capitals": ("methods", {"GRPO": {}}, ": methods: found 'GRPO'; allowed: lower-case letters and digits"),
    "two hyphens": ("methods", {"a--b": {}}, ": methods: found 'a--b'; allowed: lower-case letters and digits"),
    "a number": ("methods", {7: {}}, ": methods: found 7; allowed: text"),
    "a number as a key": ("evaluation", {3: 1}, "evaluation.3: found 3; allowed: text"),
    "reserved": (
        "methods/base",
        {"objective": {"name": "ppo-clip"}},
        ": methods: 'base' stands for the untrained",
    ),
    "several lines": ("validation", "a\nb", ": validation: 'a\\nb' is not defined in data"),
}
