"""What is run again, and what is not."""

import json
import os
import re
import signal
import subprocess
import time

import pandas as pd
import pytest
import yaml
from repository import REPOSITORY

SMOKE = ("--config", "experiment=smoke")
ITEMS = yaml.safe_load((REPOSITORY / "config/experiments/smoke.yaml").read_text())
FIGURES, TABLES = (len(ITEMS[kind]) for kind in ("figures", "tables"))
GRPO = "nano--train--grpo--s1"


@pytest.fixture
def edited(smoke):
    """Edit files of the finished run's copy; everything is put back afterwards."""
    kept = {}

    def edit(name, change):
        path = smoke.root / name
        kept.setdefault(path, (path.read_bytes(), path.stat()))
        if change is None:
            path.unlink()
        else:
            before = path.read_text()
            assert change[0] in before
            path.write_text(before.replace(*change))

    yield edit
    for path, (content, stat) in kept.items():
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_finished_experiment_has_nothing_to_do_and_says_so_quickly(smoke):
    start = time.monotonic()
    assert "Nothing to be done" in smoke.snakemake(*SMOKE).stdout
    assert time.monotonic() - start < 10


def test_another_place_for_shared_runs_or_for_records_changes_no_result(smoke):
    assert smoke.planned(*SMOKE, "shared_store=/nowhere") == {}
    assert set(smoke.planned(*SMOKE, "tracking_uri=http://127.0.0.1:9")) <= {"report", "all"}


def test_deleting_grades_reruns_grading_and_what_follows(smoke, edited):
    edited(f"results/smoke/evaluation/{GRPO}/medium/grades.parquet", None)
    assert smoke.planned(*SMOKE) == {"grade": 1, "score": 1, "compare": 3, "table": 3, "report": 1, "all": 1}


@pytest.mark.parametrize(
    ("deleted", "planned"),
    [
        (
            f"analysis/{GRPO}/law.parquet",
            {"fit_law": 1, "study": 1, "figure": 4, "table": 2, "report": 1, "all": 1},
        ),
        ("analysis/across/ceiling/ceiling.parquet", {"study": 1, "figure": 1, "report": 1, "all": 1}),
        (
            "analysis/fixed/published_ceiling.parquet",
            {"published": 1, "figure": 2, "table": 3, "report": 1, "all": 1},
        ),
        (
            "analysis/nano--train--on-policy--s1/token_covariances.parquet",
            {"token_covariances": 1, "entropy_dynamics": 1, "figure": 1, "report": 1, "all": 1},
        ),
        (
            f"analysis/{GRPO}/token_covariances.parquet",
            {"token_covariances": 1, "entropy_dynamics": 1, "figure": 1, "table": 1, "report": 1, "all": 1},
        ),
        ("figures/fig11.pdf", {"figure": 1, "report": 1, "all": 1}),
        ("report/index.html", {"report": 1, "all": 1}),
        (
            f"evaluation/{GRPO}/easy/samples.parquet",
            {"sample": 1, "grade": 3, "score": 1, "compare": 3, "table": 3, "report": 1, "all": 1},
        ),
    ],
)
def test_whatever_is_deleted_is_made_again_with_what_follows(smoke, edited, deleted, planned):
    edited(f"results/smoke/{deleted}", None)
    assert smoke.planned(*SMOKE) == planned


def test_a_methods_coefficient_retrains_that_method_alone(smoke, edited):
    edited("config/experiments/smoke.yaml", ("fraction: 0.02}", "fraction: 0.02, coefficient: 0.5}"))
    planned = smoke.planned(*SMOKE)
    assert (planned["resolve"], planned["train"], planned["sample"], planned["grade"]) == (1, 1, 1, 3)
    assert "make_model" not in planned
    text = smoke.snakemake("-n", *SMOKE).stdout
    assert "Training nano--train--kl-cov--s1" in text
    assert "Training nano--train--grpo--s1" not in text
    assert planned["token_covariances"] == 1


def test_a_benchmark_setting_samples_again_and_trains_nothing(smoke, edited):
    edited(
        "config/experiments/smoke.yaml",
        ("hard: {data: hard, protocols: [avg@4, pass@4]}", "hard: {data: hard, protocols: [avg@2]}"),
    )
    planned = smoke.planned(*SMOKE)
    assert planned["sample"] == 4
    assert not {"train", "make_model", "prepare", "fit_law"} & planned.keys()


def test_another_notion_of_contained_problems_scores_again_and_samples_nothing(smoke, edited):
    edited("config/experiments/smoke.yaml", ("analysis:", "decontamination: {words: 8}\n\nanalysis:"))
    assert smoke.planned(*SMOKE) == {"decontaminate": 1, "score": 4, "table": 2, "report": 1, "all": 1}


def test_another_prompt_samples_again_and_trains_nothing(smoke, edited):
    edited(
        "config/experiments/smoke.yaml",
        ("easy: {data: easy, protocols: [greedy]}", "easy: {data: easy, protocols: [greedy], prompt: paper-eval}"),
    )
    planned = smoke.planned(*SMOKE)
    assert planned["sample"] == 4
    assert not {"train", "make_model", "prepare", "decontaminate"} & planned.keys()


def test_another_type_to_compute_in_samples_the_base_model_again_too(smoke, edited):
    edited("config/experiments/smoke.yaml", ("\ntraining:\n", "\ntraining:\n  dtype: bfloat16\n"))
    assert smoke.planned(*SMOKE)["sample"] == 4


def test_another_grader_or_comparison_of_policies_samples_nothing(smoke, edited):
    before, after = "compare_with: [base, grpo]\n", "compare_with: [base]\n  grader: paper\n"
    edited("config/experiments/smoke.yaml", (before, after))
    planned = smoke.planned(*SMOKE)
    assert planned["grade"] == 12
    assert not {"train", "sample"} & planned.keys()


def test_every_data_set_of_the_papers_experiment_is_planned(workspace):
    paper = yaml.safe_load((REPOSITORY / "config/experiments/paper.yaml").read_text())
    trained = {name for group in paper["runs"] for name in group["train_sets"]}
    assert workspace.planned("data", "--config", "experiment=paper") == {
        "prepare": len(paper["data"]),
        "decontaminate": len(trained),
        "data": 1,
    }
    models = workspace.planned("models", "--config", "experiment=paper")
    assert models == {"fetch_model": len(paper["models"]), "models": 1}


def test_the_code_of_shared_statistics_scores_and_fits_again(smoke, edited):
    path = smoke.root / "src/entropy_mechanism/statistics.py"
    edited("src/entropy_mechanism/statistics.py", ("import", "import"))
    path.write_text(path.read_text() + "\n# changed\n")
    planned = smoke.planned(*SMOKE)
    assert (planned["score"], planned["fit_law"]) == (4, 3)
    assert not {"train", "sample", "grade"} & planned.keys()


def test_figure_code_redraws_figures_and_fits_nothing(smoke, edited):
    edited("src/entropy_mechanism/figures/style.py", ("import", "import"))
    path = smoke.root / "src/entropy_mechanism/figures/style.py"
    path.write_text(path.read_text() + "\n# changed\n")
    assert smoke.planned(*SMOKE) == {"figure": FIGURES, "table": TABLES, "report": 1, "all": 1}


def test_forcing_the_law_refits_it_and_redraws_what_shows_it(smoke):
    planned = smoke.planned(*SMOKE, "-R", "fit_law")
    assert planned["fit_law"] == 3
    assert planned["report"] == 1
    assert (planned["figure"], planned["study"]) == (4, 1)  # Fig 1, 3, 5 and 7 show the law
    assert not {"train", "sample", "grade", "entropy_dynamics"} & planned.keys()


def test_targets_plan_only_what_they_need(workspace):
    everything = workspace.planned(*SMOKE)
    assert (everything["train"], everything["figure"], everything["report"]) == (3, FIGURES, 1)
    fig11 = workspace.planned("fig11", *SMOKE)
    assert (fig11["train"], fig11["figure"]) == (2, 1)
    assert not {"sample", "fit_law", "report"} & fig11.keys()
    fig08 = workspace.planned("fig08", *SMOKE)
    assert (fig08["train"], fig08["token_covariances"], fig08["entropy_dynamics"]) == (1, 1, 1)
    assert workspace.planned("table1", *SMOKE)["token_covariances"] == 1
    assert workspace.planned("data", *SMOKE) == {"prepare": 5, "decontaminate": 1, "data": 1}
    assert "train" not in workspace.planned("models", *SMOKE)
    assert workspace.planned("figures", *SMOKE)["figure"] == FIGURES
    fig07 = workspace.planned("fig07", *SMOKE)
    assert (fig07["train"], fig07["fit_law"], fig07["study"], fig07["figure"]) == (1, 1, 1, 1)
    assert not {"sample", "entropy_dynamics", "token_covariances", "report"} & fig07.keys()
    table2 = workspace.planned("table2", *SMOKE)
    assert (table2["train"], table2["sample"], table2["table"]) == (2, 3, 1)


def test_a_study_needs_the_runs_of_its_item_alone(workspace):
    planned = workspace.planned("common_law", *SMOKE)
    assert (planned["train"], planned["study"], planned["table"]) == (2, 1, 1)
    assert not {"fit_law", "sample", "published"} & planned.keys()
    assert workspace.planned("results/smoke/analysis/fixed/published_law.parquet", *SMOKE) == {"published": 1}
    everything = workspace.planned("analysis", *SMOKE)
    assert (everything["study"], everything["published"], everything["fit_law"]) == (4, 1, 3)


def test_a_flipped_byte_is_found_by_the_audit(smoke):
    path = smoke.results / f"smoke/analysis/{GRPO}/law.parquet"
    content, stat = path.read_bytes(), path.stat()
    try:
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        done = smoke.cli("audit", "--results", "results", check=False)
        assert done.returncode == 1
        assert "law.parquet" in done.stdout
        assert "audit: 1 finding" in done.stdout
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["experiment=smok"], "'smok' is not in config/experiments"),
        (["experiment=smok"], "allowed: paper, smoke, tiny, tiny-full (did you mean 'smoke'?)"),
        (["experiment=smoke", "resluts=x"], "resluts"),
        (["experiment=smoke", "results=README.md"], "README.md is no folder"),
    ],
)
def test_a_wrong_setting_stops_with_one_line_before_any_job(workspace, arguments, expected):
    done = workspace.snakemake("--config", *arguments, check=False)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert expected in line
    assert "Traceback" not in done.stdout
    assert not list(workspace.results.glob("s*"))


def test_a_killed_training_goes_on_from_its_checkpoint_and_ends_alike(smoke, tmp_path):
    workspace = smoke.copy(tmp_path / "repository")
    path = workspace.root / "config/experiments/smoke.yaml"
    path.write_text(path.read_text().replace("steps: 6", "steps: 40"))
    target = f"results/smoke/runs/{GRPO}/manifest.json"
    whole = workspace.root / "whole"
    with subprocess.Popen(
        workspace.command(target, *SMOKE),
        cwd=workspace.root,
        env=workspace.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 120
        while not list(workspace.results.glob("store/*/checkpoints/step-00001*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (workspace.root / target).exists()
    workspace.snakemake(*SMOKE, "--unlock")
    output = workspace.snakemake(target, *SMOKE).stdout
    (step,) = re.findall(r"going on from step (\d+) of 40", output)
    assert int(step) >= 10
    resumed = pd.read_parquet(workspace.root / f"results/smoke/runs/{GRPO}/metrics.parquet")
    manifest = json.loads((workspace.root / target).read_text())

    arguments = {
        "--config": workspace.root / f"results/smoke/runs/{GRPO}/run.yaml",
        "--model": workspace.root / "results/smoke/models/nano/manifest.json",
        "--train-set": workspace.root / "results/smoke/data/train.parquet",
        "--validation": workspace.root / "results/smoke/data/validation.parquet",
        "--store": whole / "store",
        "--metrics": whole / "metrics.parquet",
        "--output": whole / "manifest.json",
        "--results": whole,
    }
    workspace.cli("train", *(str(part) for pair in arguments.items() for part in pair))
    uninterrupted = pd.read_parquet(whole / "metrics.parquet")
    timed = [name for name in resumed if name.startswith(("time/", "throughput/"))]
    pd.testing.assert_frame_equal(resumed.drop(columns=timed), uninterrupted.drop(columns=timed), check_exact=True)
    other = json.loads((whole / "manifest.json").read_text())
    assert manifest["digests"] == other["digests"]
    assert manifest["fingerprint"] == other["fingerprint"]
