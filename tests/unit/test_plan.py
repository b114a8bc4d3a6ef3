"""From an experiment to its runs, policies and their settings."""

import subprocess
import sys
from pathlib import Path

import pytest
from planned_experiment import NAMES

from entropy_mechanism.config import ConfigError, load_experiment
from entropy_mechanism.plan import Plan, Policy, Run


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
