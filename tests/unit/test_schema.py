"""The JSON schemas for editors: up to date, and of the files as they are written."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from entropy_mechanism import schema

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted((ROOT / "config/experiments").glob("*.yaml"))
SMOKE = yaml.safe_load((ROOT / "config/experiments/smoke.yaml").read_text())


def accepts(kind, content):
    return jsonschema.Draft202012Validator(schema.schema(kind)).is_valid(content)


@pytest.mark.parametrize("kind", schema.FILES)
def test_the_committed_schema_is_generated_from_the_classes(kind):
    committed = ROOT / f"workflow/schemas/{kind}.schema.json"
    command = f"entropy-mechanism schema {kind} > {committed.relative_to(ROOT)}"
    assert committed.read_text() == schema.text(kind), f"out of date: run {command}"
    jsonschema.Draft202012Validator.check_schema(json.loads(committed.read_text()))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiment_files_fit_the_schema(path):
    jsonschema.validate(yaml.safe_load(path.read_text()), schema.schema("experiment"))
    assert path.read_text().startswith(
        "# yaml-language-server: $schema=../../workflow/schemas/experiment.schema.json"
    )


def test_the_site_file_fits_the_schema():
    site = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    assert accepts("site", site)
    assert not accepts("site", site | {"result": "x"})


METHODS = {
    "all of an objective": ({"objective": {"name": "kl-cov", "fraction": 0.1}}, True),
    "nothing but extends": ({"extends": "grpo"}, True),
    "part of an objective with extends": ({"extends": "grpo", "objective": {"clip_high": 0.28}}, True),
    "part of a training": ({"extends": "grpo", "training": {"updates": 1}}, True),
    "neither objective nor extends": ({"preset": "verl"}, False),
    "part of an objective without extends": ({"objective": {"clip_high": 0.28}}, False),
    "extends nothing": ({"extends": None}, False),
    "parameter of another objective": ({"objective": {"name": "kl-cov", "covariance_low": 0.5}}, False),
    "unknown objective": ({"extends": "grpo", "objective": {"name": "gsppo"}}, False),
    "parameters of two objectives": (
        {"extends": "grpo", "objective": {"covariance_low": 0.1, "coefficient": 1}},
        False,
    ),
    "unknown key": ({"extends": "grpo", "learning_rate": 1.0}, False),
    "unknown key in training": ({"extends": "grpo", "training": {"lr": 1.0}}, False),
}


@pytest.mark.parametrize(("method", "accepted"), METHODS.values(), ids=list(METHODS))
def test_a_method_is_checked_as_it_is_written(method, accepted):
    assert accepts("experiment", SMOKE | {"methods": SMOKE["methods"] | {"mine": method}}) is accepted


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "Train", SMOKE["data"]["train"]),
        ("data", "train", SMOKE["data"]["train"] | {"operands": [1, 2]}),
        ("models", "nano", SMOKE["models"]["nano"] | {"layer": 1}),
        ("training", "steps", 0),
        ("training", "steps", "six"),
        ("figures", "fig99", {}),
        ("evaluation", "benchmarks", {"easy": {"data": "easy", "protocols": ["best@4"]}}),
    ],
)
def test_the_schema_refuses_what_the_classes_refuse(section, key, value):
    raw = copy.deepcopy(SMOKE)
    raw[section][key] = value
    assert not accepts("experiment", raw)


def test_every_key_carries_its_help_text():
    made = schema.schema("experiment")
    sections = made["$defs"] | {"Experiment": made}
    undescribed = {
        f"{section}.{key}"
        for section, definition in sections.items()
        for key, value in definition["properties"].items()
        if key not in ("name", "kind")
        and "description" not in value
        and "description" not in sections.get(value.get("$ref", "").rpartition("/")[2], {})
    }
    assert not undescribed
    assert "group size" in made["$defs"]["Training"]["properties"]["samples"]["description"]
    assert "group size" in made["$defs"]["TrainingOverride"]["properties"]["samples"]["description"]
