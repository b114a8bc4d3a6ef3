"""Attempts of a training that fails, with `retries`: all of them, or none where it would fail again."""

import json

import yaml

PERMANENT, KILLED = (f"nano--train--grpo--s{seed}" for seed in (1, 2))
# Ends every process that would train the second run before it begins, as a node that fails does.
FAILING_NODE = f"""\
import os, sys
if sys.orig_argv[1:4] == ["-m", "entropy_mechanism", "train"] and "{KILLED}" in " ".join(sys.orig_argv):
    with open("attempts", "a") as attempts:
        attempts.write("x")
    os._exit(1)
"""


def test_what_would_fail_again_is_tried_once_by_each_invocation_and_all_else_as_often_as_asked(workspace):
    settings = yaml.safe_load((workspace.root / "config/experiments/smoke.yaml").read_text())
    settings["training"] |= {"learning_rate": 1e30, "max_skipped_updates": 0}
    settings["runs"] = [{"models": ["nano"], "train_sets": ["train"], "methods": ["grpo"], "seeds": [1, 2]}]
    settings["evaluation"].pop("compare_with")
    for name in ("figures", "tables"):
        settings.pop(name)
    (workspace.root / "broken.yaml").write_text(yaml.safe_dump(settings))
    (workspace.root / "src/sitecustomize.py").write_text(FAILING_NODE)
    runs = workspace.results / "broken/runs"
    for run in (PERMANENT, KILLED):  # of an earlier invocation: without meaning for this one
        (runs / run).mkdir(parents=True)
        (runs / run / "gave-up.json").write_text('{"invocation": "earlier", "error": ""}')
    arguments = ("training", "--keep-going", "--config", "experiment=broken.yaml", "--retries")
    for invocation, (retries, attempts) in enumerate([(5, 6), (2, 9)], start=1):
        failed = workspace.snakemake(*arguments, str(retries), check=False)
        assert failed.returncode == 1
        records = [json.loads(path.read_text()) for path in (workspace.results / "records/train").glob("*.json")]
        assert [record["key"] for record in records] == [PERMANENT] * invocation, failed.stdout
        assert len((workspace.root / "attempts").read_text()) == attempts, failed.stdout
        told = json.loads((runs / PERMANENT / "gave-up.json").read_text())
        assert told["invocation"] in {record["invocation"] for record in records}
        assert "updates" in told["error"]
    assert len({record["invocation"] for record in records}) == 2
