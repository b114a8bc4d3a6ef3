"""From an experiment to its runs, policies and their settings."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
import yaml

from entropy_mechanism.config import ConfigError, load_experiment
from entropy_mechanism.hub import SourceName
from entropy_mechanism.plan import Plan, Policy, Run
from entropy_mechanism.stages.prepare import prepare

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


@pytest.fixture
def planned(tmp_path):
    """The plan of RAW after an edit."""

    def plan(edit=lambda raw: None):
        raw = copy.deepcopy(RAW)
        edit(raw)
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(raw, sort_keys=False))
        return Plan(load_experiment(path))

    return plan


def configs(plan):
    return {name: plan.run_config(name).model_dump(mode="json") for name in plan.runs}


def test_each_combination_is_one_run_however_often_it_is_listed(planned):
    plan = planned()
    assert list(plan.runs) == NAMES
    assert plan.runs["nano--long--on-policy--s1"] == Run("nano", "long", "on-policy", 1)


def test_bases_come_before_runs_among_the_policies(planned):
    policies = planned().policies
    assert list(policies) == ["nano--base", "micro--base", *NAMES]
    assert policies["micro--base"] == Policy("micro")
    assert policies["micro--base"].identity == {
        "policy": "micro--base", "model": "micro", "train_set": None, "method": "base", "seed": None
    }  # fmt: skip
    assert policies["nano--train--grpo--s2"].identity == {
        "policy": "nano--train--grpo--s2", "model": "nano", "train_set": "train", "method": "grpo", "seed": 2
    }  # fmt: skip


def test_only_models_and_data_that_are_used_are_made(planned):
    plan = planned()
    assert plan.models == ["nano", "micro"]
    assert plan.data_sets == ["train", "long", "validation", "test"]


def test_the_config_of_a_run_is_fully_resolved(planned):
    plan = planned()
    on_policy = plan.run_config("nano--long--on-policy--s1")
    assert (on_policy.run, on_policy.model, on_policy.train_set) == ("nano--long--on-policy--s1", "nano", "long")
    assert (on_policy.method, on_policy.seed, on_policy.objective.name) == ("on-policy", 1, "policy-gradient")
    assert (on_policy.training.updates, on_policy.training.samples, on_policy.training.steps) == (1, 6, 4)
    grpo = plan.run_config("nano--train--grpo--s2")
    assert (grpo.seed, grpo.objective.clip_high, grpo.objective.clip_low) == (2, 0.3, 0.2)
    assert (grpo.training.updates, grpo.training.samples) == (2, 6)
    kl_cov = plan.run_config("nano--train--kl-cov--s1").objective
    assert (kl_cov.name, kl_cov.coefficient, kl_cov.fraction, kl_cov.scope) == ("kl-cov", 1.0, 0.002, "minibatch")
    assert (kl_cov.policy, kl_cov.min_tokens, kl_cov.penalty) == ("current", 0, "abs")


def set_coefficient(raw):
    raw["methods"]["kl-cov"]["objective"]["coefficient"] = 2.0


def set_grpo_samples(raw):
    raw["methods"]["grpo"]["training"]["samples"] = 8


def set_title(raw):
    raw["title"] = "another"


def set_figures(raw):
    raw["figures"] = {}
    raw["analysis"] = {"resamples": 7}
    raw["evaluation"]["temperature"] = 0.3


def add_method(raw):
    raw["methods"] = {"new": {"objective": {"name": "clip-cov"}}} | raw["methods"]
    raw["runs"].insert(0, raw["runs"][0] | {"methods": ["new"]})


def set_steps(raw):
    raw["training"]["steps"] = 5


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (set_coefficient, [name for name in NAMES if "--kl-cov--" in name]),
        (set_grpo_samples, NAMES),
        (set_title, []),
        (set_figures, []),
        (add_method, []),
        (set_steps, NAMES),
    ],
)
def test_an_edit_changes_the_config_of_the_runs_it_concerns_only(planned, edit, changed):
    before, after = configs(planned()), configs(planned(edit))
    assert [name for name in before if before[name] != after[name]] == changed


def test_the_science_of_a_run_is_independent_of_its_names(planned):
    def rename(raw):
        raw["models"]["other"] = raw["models"].pop("nano")
        raw["runs"] = [group | {"models": ["other"]} for group in raw["runs"]]
        raw["figures"], raw["tables"] = {}, {}

    before = planned().run_config("nano--train--kl-cov--s2")
    after = planned(rename).run_config("other--train--kl-cov--s2")
    assert before != after
    assert before.science == after.science
    assert before.science != planned().run_config("nano--train--kl-cov--s1").science


def test_the_engine_is_part_of_the_science_and_the_rest_of_compute_is_not(planned):
    def compute(**settings):
        return (
            planned(lambda raw: raw.update(compute={"nano": settings}))
            .run_config("nano--train--kl-cov--s1")
            .science
        )

    assert compute() == compute(ranks=2, sharding="full") != compute(engine="vllm")
    assert compute(engine="vllm") == compute(engine="vllm", ranks=4, tensor_parallel=2, vllm_memory=0.3)


def test_a_run_is_measured_against_its_training_set_and_a_base_model_against_those_of_its_runs(planned):
    plan = planned()
    assert plan.trained_sets == ["train", "long"]
    assert plan.tested_sets == ["validation", "test"]
    assert plan.train_sets("nano--train--grpo--s2") == ["train"]
    assert plan.train_sets("nano--base") == ["train", "long"]
    assert plan.train_sets("micro--base") == ["train"]


def test_prompt_styles_reach_runs_and_benchmarks(planned):
    def style(raw):
        raw["data"]["train"]["prompt"] = "paper-train"
        raw["data"]["test"]["prompt"] = "paper-eval"
        benchmarks = raw["evaluation"]["benchmarks"]
        benchmarks["other"] = benchmarks["easy"] | {"prompt": "qwen25-math-cot"}

    plan = planned(style)
    run = plan.run_config("nano--train--grpo--s1")
    assert (run.prompt, run.validation_prompt) == ("paper-train", "plain")
    assert plan.run_config("nano--long--on-policy--s1").prompt == "plain"
    assert [plan.experiment.prompt_of(name) for name in ("easy", "other")] == ["paper-eval", "qwen25-math-cot"]
    assert run.science != planned().run_config("nano--train--grpo--s1").science


def test_runs_are_compared_with_the_base_model_and_methods_of_their_own_model_set_and_seed():
    plan = Plan(load_experiment(Path(__file__).parents[2] / "config/experiments/smoke.yaml"))
    assert [policy.name for policy in plan.references("nano--train--kl-cov--s1")] == [
        "nano--base",
        "nano--train--grpo--s1",
    ]
    assert [policy.name for policy in plan.references("nano--train--grpo--s1")] == ["nano--base"]
    assert plan.references("nano--base") == []


EXPERIMENTS = Path(__file__).parents[2] / "config/experiments"
QWEN = [f"qwen2.5-{size}" for size in ("0.5b", "1.5b", "3b", "7b", "32b")]
OTHERS = ["mistral-7b", "mistral-nemo-12b", "llama3.2-3b", "llama3.1-8b", "deepseek-math-7b"]


@pytest.fixture(scope="module")
def paper():
    return Plan(load_experiment(EXPERIMENTS / "paper.yaml"))


def test_the_papers_experiment_covers_its_data_and_table_2(paper):
    data = paper.experiment.data
    sources = {settings.source for settings in data.values() if settings.kind == "hub"}
    assert sources == set(get_args(SourceName)) - {"dapo-math-raw"}
    benchmarks = {
        data[benchmark.data].source: benchmark.protocols
        for benchmark in paper.experiment.evaluation.benchmarks.values()
    }
    sampled, greedy = ["avg@32"], ["greedy"]
    assert benchmarks == {
        "aime24": sampled, "aime25": sampled, "amc": sampled, "math500": greedy, "omni-math-rule": greedy,
        "olympiadbench": greedy, "minerva": greedy,
    }  # fmt: skip
    assert paper.experiment.evaluation.temperature == 0.6
    assert [run.name for run in paper.shown("fig11")] == [run.name for run in paper.shown("table2")]
    assert [(run.model, run.method) for run in paper.shown("fig11")] == [
        *(("qwen2.5-7b", method) for method in ("grpo", "clip-higher", "clip-cov", "kl-cov")),
        *(("qwen2.5-32b", method) for method in ("grpo", "clip-higher", "clip-cov", "kl-cov-32b")),
    ]
    configs = [paper.run_config(run.name) for run in paper.shown("fig11")]
    assert {
        config.model: config.objective.fraction for config in configs if config.objective.name == "kl-cov"
    } == {"qwen2.5-7b": 2e-3, "qwen2.5-32b": 2e-4}
    settings = {
        config.model: (
            config.training.learning_rate,
            config.training.steps * config.training.updates,
            config.training.max_response,
            config.training.prompts // config.training.updates * config.training.samples,
        )
        for config in configs
    }
    assert settings == {"qwen2.5-7b": (5e-7, 2600, 8192, 256), "qwen2.5-32b": (1e-6, 1088, 8192, 256)}
    assert {paper.validations[config.run] for config in configs} == {"all-tests"}


def test_the_papers_law_has_eleven_models_on_mathematics_and_code(paper):
    law = {(run.model, run.train_set) for run in paper.runs.values() if run.method == "grpo"}
    large = [*QWEN, "mistral-small-24b"]
    assert {(model, "eurus2-math") for model in large} <= law
    assert {(model, "gsm8k-train") for model in OTHERS} <= law
    assert {(model, "code") for model in large + OTHERS} <= law
    assert paper.experiment.parts_of("code") == ["eurus2-code", "kodcode", "acecode"]
    assert {paper.validations[run.name] for run in paper.runs.values() if run.train_set == "code"} == {
        "code-tests"
    }
    instruct = {run.model for run in paper.runs.values() if run.model.endswith("instruct")}
    assert instruct == {f"qwen2.5-{size}-instruct" for size in ("1.5b", "3b", "7b")}
    training = paper.run_config("qwen2.5-0.5b--eurus2-math--grpo--s1").training
    assert (training.learning_rate, training.steps * training.updates) == (5e-7, 2400)
    assert training.prompts * training.max_batches == 512
    fig13 = {run.train_set for run in paper.runs.values() if (run.model, run.method) == ("qwen2.5-7b", "grpo")}
    assert fig13 == {"eurus2-math", "eurus2-math-difficult", "gsm8k", "dapo-math-17k", "dapo-math", "code"}


def test_the_papers_fig13_compares_runs_that_differ_only_in_what_they_are_trained_on(paper):
    shown = paper.shown("fig13")
    assert [paper.experiment.data[run.train_set].source for run in shown] == [
        "eurus2-math", "dapo-math", "gsm8k-train", "eurus2-math"
    ]  # fmt: skip
    assert {paper.validations[run.name] for run in shown} == {"math-tests"}
    settings = [paper.run_config(run.name).model_dump(exclude={"run", "train_set"}) for run in shown]
    assert all(one == settings[0] for one in settings[1:])


def test_every_figure_and_table_of_the_paper_shows_the_runs_that_the_paper_shows(paper):
    items = {**paper.experiment.figures, **paper.experiment.tables}
    assert {f"fig{number:02d}" for number in range(1, 15)} | {"table1", "table2"} <= set(items)
    counts = {item: len(paper.shown(item)) for item in items}
    assert [counts[f"fig{number:02d}"] for number in range(1, 15)] == [
        5,
        11,
        11,
        11,
        8,
        4,
        10,
        1,
        5,
        5,
        8,
        10,
        4,
        3,
    ]
    assert (counts["table1"], counts["table2"]) == (1, 8)
    shown = {run.name for item in items if item != "theory" for run in paper.shown(item)}
    assert shown == set(paper.runs)


def test_the_papers_sweeps_have_its_coefficients(paper):
    configs = [paper.run_config(name) for name in paper.runs]
    entropy = {config.regularisation.entropy for config in configs}
    assert entropy == {0, 1e-4, 1e-3, 5e-3, 1e-2}
    reference = {config.regularisation.reference_kl for config in configs}
    assert reference == {0, 1e-3, 1e-2, 5e-2, 1e-1}
    assert {config.regularisation.kl_estimator for config in configs if config.regularisation.reference_kl} == {
        "k3"
    }
    seven = [config for config in configs if (config.model, config.train_set) == ("qwen2.5-7b", "dapo-math")]
    ratios = {config.objective.fraction for config in seven if config.objective.name == "clip-cov"}
    assert ratios == {2e-4, 4e-4, 5e-4, 7e-4}
    coefficients = {config.objective.coefficient for config in seven if config.objective.name == "kl-cov"}
    assert coefficients == {0, 0.05, 0.1, 0.5, 1}
    estimators = {config.advantage.estimator for config in configs if config.train_set == "eurus2-math"}
    assert estimators == {"grpo", "rloo", "reinforce++", "prime"}
    on_policy = paper.run_config("qwen2.5-7b--eurus2-math--on-policy--s1")
    assert (on_policy.training.updates, on_policy.training.steps) == (1, 2060)
    assert (on_policy.objective.name, on_policy.training.record_tokens_every) == ("policy-gradient", 8)


def test_models_end_responses_with_tokens_of_their_own(paper):
    stops = {config.model: config.training.stop for config in map(paper.run_config, paper.runs)}
    assert stops["qwen2.5-32b"] == stops["qwen2.5-7b-instruct"] == ["<|endoftext|>", "<|im_end|>"]
    assert stops["mistral-small-24b"] == stops["mistral-7b"] == stops["mistral-nemo-12b"] == ["</s>"]
    assert stops["llama3.2-3b"] == stops["llama3.1-8b"] == ["<|end_of_text|>"]
    assert stops["deepseek-math-7b"] == ["<\uff5cend\u2581of\u2581sentence\uff5c>"]


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


def test_runs_are_validated_and_tested_on_what_their_group_names(planned):
    plan = planned(code_too)
    assert plan.validations == {
        "nano--train--grpo--s1": "validation",
        "nano--code--grpo--s1": "code-validation",
        "nano--long--kl-cov--s1": "validation",
    }
    asked = {name: plan.benchmarks(name) for name in plan.policies}
    assert asked == {
        "nano--base": ["easy", "code"],
        "nano--train--grpo--s1": ["easy"],
        "nano--code--grpo--s1": ["code"],
    }
    assert plan.benchmark_sets == {
        ("easy", "code"): ["nano--base"],
        ("easy",): ["nano--train--grpo--s1"],
        ("code",): ["nano--code--grpo--s1"],
    }
    assert [policy.name for policy in plan.shown_policies("table2")] == list(asked)
    assert plan.tested_sets == ["validation", "code-validation", "test", "code-test"]


def test_a_run_is_compared_only_with_policies_that_answered_its_benchmarks(planned):
    def edit(raw):
        code_too(raw)
        raw["evaluation"]["compare_with"] = ["base", "grpo"]
        raw["runs"].append(raw["runs"][0] | {"methods": ["kl-cov"], "benchmarks": ["easy", "code"]})

    plan = planned(edit)
    assert [policy.name for policy in plan.references("nano--train--kl-cov--s1")] == ["nano--base"]
    assert [policy.name for policy in plan.references("nano--code--grpo--s1")] == ["nano--base"]


def test_a_run_of_two_groups_answers_what_either_asks(planned):
    def edit(raw):
        code_too(raw)
        raw["runs"].append({key: value for key, value in raw["runs"][0].items() if key != "benchmarks"})

    assert planned(edit).benchmarks("nano--train--grpo--s1") == ["easy", "code"]


def test_a_group_changes_training_for_its_runs_and_a_method_has_the_last_word(planned):
    def edit(raw):
        code_too(raw)
        raw["runs"][1]["training"] = {"steps": 9, "samples": 5}

    plan = planned(edit)
    settings = {name: plan.run_config(name).training for name in plan.runs}
    assert (settings["nano--code--grpo--s1"].steps, settings["nano--code--grpo--s1"].samples) == (9, 6)
    assert (settings["nano--train--grpo--s1"].steps, settings["nano--train--grpo--s1"].samples) == (4, 6)


def joined(raw):
    code_too(raw)
    raw["data"]["all"] = {"kind": "joined", "parts": ["validation", "code-validation"], "prompt": "paper-eval"}
    raw["validation"] = "all"


def test_a_joined_set_brings_its_parts_and_its_own_prompt(planned):
    plan = planned(joined)
    assert plan.validations["nano--train--grpo--s1"] == "all"
    assert plan.run_config("nano--train--grpo--s1").validation_prompt == "paper-eval"
    assert plan.experiment.parts_of("all") == ["validation", "code-validation"]
    sets = plan.data_sets
    assert {"validation", "code-validation", "all"} <= set(sets)
    assert max(sets.index("validation"), sets.index("code-validation")) < sets.index("all")


def test_preparing_a_joined_set_puts_its_parts_together(tmp_path):
    raw = copy.deepcopy(RAW)
    joined(raw)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    frames = {}
    for name, parts in (("validation", []), ("code-validation", []), ("all", ["validation", "code-validation"])):
        files = [tmp_path / f"{part}.parquet" for part in parts]
        prepare(path, name, files, tmp_path / f"{name}.parquet", tmp_path / f"{name}.json", tmp_path / "results")
        frames[name] = pd.read_parquet(tmp_path / f"{name}.parquet")
    assert frames["all"]["id"].tolist() == [*frames["validation"]["id"], *frames["code-validation"]["id"]]
    assert (frames["all"]["tests"] == "").sum() == len(frames["validation"])
    facts = json.loads((tmp_path / "all.json").read_text())
    assert facts["parts"] == {"validation": 50, "code-validation": 50}
    one, places = [tmp_path / "validation.parquet"], (tmp_path / "x.parquet", tmp_path / "x.json")
    with pytest.raises(ValueError, match="--parts: found 1 files"):
        prepare(path, "all", one, *places, tmp_path / "results")


def parts(names, **more):
    def edit(raw):
        joined(raw)
        raw["data"]["all"]["parts"] = names
        raw["data"] |= more

    return edit


def group(index, **changes):
    def edit(raw):
        code_too(raw)
        raw["runs"][index] |= changes

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (group(1, validation="code-valid"), r"runs\[1\].validation: 'code-valid' is not defined in data.*mean"),
        (group(1, benchmarks=["cod"]), r"runs\[1\].benchmarks\[0\]: 'cod' is not defined in evaluation.bench"),
        (group(1, validation="code"), r"runs\[1\].validation: 'code' may hold problems of 'code'"),
        (group(1, training={"stepz": 3}), r"runs\[1\].training.stepz: unknown key"),
        (
            group(0, training={"samples": 1}, methods=["plain"]),
            r"runs\[0\].training.samples: found 1; .*grpo compa",
        ),
        (
            parts(["validation", "tset"]),
            r"data.all.parts\[1\]: 'tset' is not a data set that is not joined itself",
        ),
        (parts(["validation", "all"]), r"data.all.parts\[1\]: 'all' is not a data set that is not joined itself"),
        (parts(["test", "test"]), r"data.all.parts: 'test' is written twice"),
        (parts(["validation", "long"]), r"validation: 'all' may hold problems of '(train|long)', which runs are"),
        (group(1, train_sets=["train"]), r"runs\[1\].validation: found 'code-validation' for nano--train--grpo"),
        (
            lambda raw: (code_too(raw), [one.update(benchmarks=[]) for one in raw["runs"]]),
            r"tables.table2: shows scores, and every run it shows has `benchmarks: \[\]`",
        ),
    ],
)
def test_validations_and_benchmarks_that_cannot_be_are_refused(planned, edit, message):
    with pytest.raises(ConfigError, match=message):
        planned(edit)


def test_figures_and_tables_show_the_runs_their_filter_passes(planned):
    plan = planned()
    shown = {
        item: [run.name for run in plan.shown(item)] for item in ("fig01", "fig02", "fig11", "table1", "table2")
    }
    assert shown == {
        "fig01": NAMES,
        "fig02": ["micro--train--grpo--s1"],
        "fig11": ["nano--train--kl-cov--s1", "nano--train--kl-cov--s2", "nano--long--on-policy--s1"],
        "table1": ["nano--long--on-policy--s1"],
        "table2": ["nano--train--grpo--s1", "nano--train--grpo--s2", "micro--train--grpo--s1"],
    }


def test_a_table_compares_its_runs_with_their_own_base_models(planned):
    plan = planned()
    assert [policy.name for policy in plan.shown_policies("table1")] == ["nano--base", "nano--long--on-policy--s1"]
    assert [policy.name for policy in plan.shown_policies("table2")] == [
        "nano--base",
        "micro--base",
        "nano--train--grpo--s1",
        "nano--train--grpo--s2",
        "micro--train--grpo--s1",
    ]


def test_an_unknown_run_is_named(planned):
    with pytest.raises(ConfigError, match=r"no run is named 'nano--train--gpro--s1'; .*did you mean"):
        planned().run_config("nano--train--gpro--s1")


def test_planning_imports_nothing_heavy():
    program = """
import sys
from entropy_mechanism.config import load_experiment
from entropy_mechanism.figures import registry
from entropy_mechanism.paths import Paths
from entropy_mechanism.plan import Plan
Plan(load_experiment(sys.argv[1])).runs
print(sorted({"torch", "mlflow", "matplotlib", "transformers", "pandas", "numpy"} & set(sys.modules)))
"""
    smoke = Path(__file__).parents[2] / "config/experiments/smoke.yaml"
    result = subprocess.run([sys.executable, "-c", program, smoke], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
