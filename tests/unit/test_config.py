"""A wrong configuration stops with one readable line that names the file, the key and what is allowed."""

import copy
import math
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from entropy_mechanism import schema, settings
from entropy_mechanism.config import (
    ConfigError,
    Experiment,
    FigureName,
    Site,
    TableName,
    experiment_path,
    load_experiment,
    load_site,
    read_run_config,
)
from entropy_mechanism.config_errors import MOST_FAILURES
from entropy_mechanism.figures import registry
from entropy_mechanism.plan import Plan
from entropy_mechanism.settings import Strict

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


@pytest.fixture
def message(tmp_path):
    """The message of the ConfigError that an experiment file with this content raises, without the file."""

    def read(content):
        path = tmp_path / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        with pytest.raises(ConfigError) as caught:
            load_experiment(path)
        text = str(caught.value)
        assert "\n" not in text, "more than one line"
        assert text.startswith(str(path)), "the file is not named"
        assert len(text) < len(str(path)) + 500, "too long to read"
        assert "pydantic" not in text
        assert "Input should" not in text
        return text.removeprefix(str(path))

    return read


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
        ": figures.fig11: found nothing; allowed: keys models, train_sets, methods, code, inputs, sha256, or",
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


def test_one_run_with_token_records_is_enough_but_it_must_be_of_the_right_kind(message, tmp_path):
    raw = edited("figures", {"fig08": {}}) | {"tables": {"table1": {}}}
    raw["methods"]["kl-cov"]["training"] = {"record_tokens_every": 5}
    assert "figures.fig08: is drawn from token records" in message(raw)  # KL-Cov makes two updates here
    raw["methods"]["on-policy"]["training"]["record_tokens_every"] = 1
    path = tmp_path / "recorded.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert load_experiment(path).training_of("on-policy").record_tokens_every == 1


def test_the_base_of_all_edits_is_valid(tmp_path):
    path = tmp_path / "valid.yaml"
    path.write_text(yaml.safe_dump(VALID))
    assert load_experiment(path).title == VALID["title"]


@pytest.mark.parametrize(
    ("path", "value", "fragments"), [(p, v, f) for p, v, *f in WRONG.values()], ids=list(WRONG)
)
def test_a_wrong_setting_is_named_with_what_is_allowed(message, path, value, fragments):
    text = message(edited(path, value))
    assert all(fragment in text for fragment in fragments), text


FILES = {
    "a key twice": ("title: a\ndata: {}\ntitle: b\n", ":3: not valid YAML: key 'title' is written twice"),
    "a nested key twice": (
        "training:\n  steps: 1\n  prompts: 2\n  steps: 3\n",
        ":4: not valid YAML: key 'steps' is written twice",
    ),
    "not closed": ("data: {train: {kind: arithmetic}\ntitle: a\n", ":2: not valid YAML: expected ',' or '}'"),
    "a tab": ("data:\n\ttrain: 1\n", ":2: not valid YAML: found character '\\t' that cannot start any token"),
    "a list as a key": ("? [a]\n: b\n", ":1: not valid YAML: found unhashable key"),
    "an object": (
        "title: !!python/object:os.system {}\n",
        ":1: not valid YAML: could not determine a constructor",
    ),
    "a control character": ("title: \x01\n", ": not valid YAML: "),
    "empty": ("", ": the file is empty"),
    "comments only": ("# nothing\n", ": the file is empty"),
    "a list": ("- title\n- data\n", ": found a list; allowed: keys and values"),
    "text": ("title\n", ": found 'title'; allowed: keys and values"),
    "nothing known": ("{}", ": title: required key is missing | data: required key is missing | "),
}


@pytest.mark.parametrize(("content", "expected"), FILES.values(), ids=list(FILES))
def test_a_file_that_is_not_an_experiment_is_refused_in_one_line(message, content, expected):
    assert message(content).startswith(expected)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("title: Überlänge".encode("latin-1"))
    for path, expected in (
        (tmp_path / "absent.yaml", "no such file"),
        (tmp_path, "Is a directory"),
        (latin, "not a text file in UTF-8"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_experiment(path)
        assert str(caught.value) == f"{path}: {expected}"


def test_generated_and_published_sets_may_stand_side_by_side(tmp_path):
    raw = edited("data/hard", {"kind": "hub", "source": "gsm8k-test", "limit": 5})
    raw["data"]["train"] = {"kind": "hub", "source": "gsm8k-train"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    data = load_experiment(path).data
    assert not any(data[a].overlaps(data[b]) for a in data for b in data if a != b)
    assert all(settings.overlaps(settings) for settings in data.values())


def test_many_mistakes_stay_one_short_line(message):
    text = message(
        VALID | {"title": 1, "data": {name: {"kind": "arithmetic"} for name in "abcdefgh"}, "validation": 2}
    )
    failures = 1 + 8 * 3 + 1  # three more keys of a data set are required
    assert text.count(" | ") == MOST_FAILURES
    assert text.endswith(f" | and {failures - MOST_FAILURES} more")


def test_a_mistake_is_reported_where_it_is_written_and_not_in_the_methods_that_inherit_it(message):
    text = message(edited("methods/grpo/training/weight_decay", -1))
    assert text == ": methods.grpo.training.weight_decay: found -1; allowed: 0.0 or more"
    own = message(edited("methods/kl-cov-strong/objective/coefficient", -1))
    assert own == ": methods.kl-cov-strong.objective.coefficient: found -1; allowed: 0.0 or more"


def test_a_misspelt_required_key_is_shown_with_its_correction(message):
    raw = edited("training/stepz", 6)
    del raw["training"]["steps"]
    text = message(raw)
    assert text.startswith(": training.stepz: unknown key;")
    assert "(did you mean 'steps'?) | training.steps: required key is missing" in text


def problem_with(path):
    try:
        load_experiment(path)
    except ConfigError as error:
        return str(error)
    return None


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@hypothesis_settings(deadline=None)
@given(VALUES, st.data())
def test_no_value_at_any_place_escapes_as_another_error(tmp_path_factory, value, data):
    raw = copy.deepcopy(VALID)
    section = raw
    while True:
        key = data.draw(st.sampled_from(list(section) if isinstance(section, dict) else list(range(len(section)))))
        if not isinstance(section[key], dict | list) or not section[key] or data.draw(st.booleans()):
            break
        section = section[key]
    section[key] = value
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    text = problem_with(path)
    assert text is None or (text.startswith(str(path)) and len(text.splitlines()) == 1)


# --- what is read -------------------------------------------------------------------------------------------


def load(tmp_path, raw):
    path = tmp_path / "mine.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw, sort_keys=False))
    return load_experiment(path)


def test_extends_takes_over_what_it_does_not_change(tmp_path):
    methods = load(tmp_path, VALID).methods
    assert methods["kl-cov"].training.weight_decay == 0.1
    strong = methods["kl-cov-strong"].objective
    assert (strong.name, strong.fraction, strong.coefficient) == ("kl-cov", 0.02, 10.0)


def test_another_objective_replaces_the_inherited_one_whole(tmp_path):
    raw = edited("methods/grpo/objective", {"name": "ppo-clip", "clip_high": 0.28})
    objective = load(tmp_path, raw).methods["clip-cov"].objective
    assert (objective.name, objective.clip_high) == ("clip-cov", 1.0)


@pytest.mark.parametrize("written", ["4e-4", "4.0e-4", "0.0004", "4E-04"])
def test_a_number_is_read_however_it_is_written(tmp_path, written):
    text = yaml.safe_dump(VALID).replace("learning_rate: 0.001", f"learning_rate: {written}")
    assert load(tmp_path, text).training.learning_rate == 4e-4


def test_an_experiment_cannot_be_changed(tmp_path):
    experiment = load(tmp_path, VALID)
    with pytest.raises(ValueError, match="frozen"):
        experiment.training.steps = 7


def test_a_run_config_survives_being_written(tmp_path):
    config = Plan(load(tmp_path, VALID)).run_config("nano--train--kl-cov--s2")
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    assert read_run_config(path) == config
    path.write_text(path.read_text().replace("samples:", "sampels:"))
    with pytest.raises(ConfigError, match=r"run.yaml: .*training.sampels: unknown key; .*did you mean 'samples'"):
        read_run_config(path)


# --- the site -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"result": "x"},
            f"result: unknown key; allowed: {', '.join(Site.model_fields)} (did you mean 'results'?)",
        ),
        ({"results": 5}, "results: found 5; allowed: text"),
        ({"results": ""}, "results: found ''; allowed: text that is not empty"),
        ({"experiment": None}, "experiment: found nothing; allowed: text"),
        (
            {"tracking_uri": "https://me:hunter2@host/path"},
            "tracking_uri: found https://***@host/path, an address with credentials in it, which everyone on the "
            "machine could read in the list of processes; allowed: an address without them. Put them into the "
            "environment variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (docs/tracking.md)",
        ),
        (
            {"shared_store": "results/store"},
            "shared_store: found 'results/store', which is inside the results folder; allowed: a folder outside "
            "it, which others can reach",
        ),
        ({"shared_store": ""}, "shared_store: found ''; allowed: text that is not empty"),
    ],
)
def test_a_wrong_site_setting_is_named(change, expected):
    with pytest.raises(ConfigError) as caught:
        load_site({"experiment": "tiny", "results": "results"} | change)
    assert str(caught.value) == f"config/config.yaml or --config: {expected}"


def test_an_experiment_is_found_by_name_or_path(tmp_path):
    for name in ("smoke", "tiny"):
        (tmp_path / f"{name}.yaml").touch()
    assert experiment_path("smoke", tmp_path) == tmp_path / "smoke.yaml"
    assert experiment_path("elsewhere/mine.yaml", tmp_path).as_posix() == "elsewhere/mine.yaml"
    with pytest.raises(ConfigError) as caught:
        experiment_path("smok", tmp_path)
    text = str(caught.value)
    assert "experiment: 'smok' is not in" in text
    assert "allowed: smoke, tiny (did you mean 'smoke'?)" in text


@pytest.mark.parametrize("stem", ["store", "records", "mlruns", "mlartifacts", "My Study", "a{b}", ""])
def test_an_experiment_file_must_be_able_to_name_a_results_folder(stem):
    with pytest.raises(ConfigError, match="results are kept under the file's name"):
        experiment_path(f"/elsewhere/{stem}.yaml")


def test_every_drawable_figure_and_table_can_be_configured():
    assert get_args(FigureName) == tuple(registry.FIGURES)
    assert get_args(TableName) == tuple(registry.TABLES)


def test_every_setting_has_a_help_text():
    classes = [value for value in vars(settings).values() if isinstance(value, type)]
    sections = [Experiment, Site, *(value for value in classes if issubclass(value, Strict))]
    undescribed = {
        f"{section.__name__}.{name}"
        for section in sections
        for name in section.model_fields
        if name not in schema.help_texts(section) and name not in ("name", "kind")
    }
    assert not undescribed
