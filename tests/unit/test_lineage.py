"""Lineage over invented records: what leads where is written down here, and compared with what is found."""

import json
import time

import pytest
from invented_records import Past, digest

from entropy_mechanism.stages.lineage import lineage
from entropy_mechanism.tracking.history import History
from entropy_mechanism.tracking.lineage import as_json, as_text, trace


@pytest.fixture
def past(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Past(tmp_path / "results")


def found(past, asked, **options):
    """The lineage as JSON."""
    history = History(past.results)
    return as_json(trace(history, str(asked), **options), history)


def edges(value):
    """(from, to, note) of every link, with the ids of executions; what was asked for is the first `from`."""
    links = [(None, link) for link in value["links"]]
    links += [(name, link) for name, item in value["executions"].items() for link in item["links"]]
    return {(name, link["execution"], link["note"]) for name, link in links}


def linked(value, name, path):
    """The link of one execution, or of what was asked for (None), that has a file."""
    links = value["links"] if name is None else value["executions"][name]["links"]
    (link,) = [link for link in links if path in [file["path"] for file in link["files"]]]
    return link


def a_figure(past):
    """data -> model -> run -> curves -> figure, and a second run that the figure does not show."""
    ids = {
        "data": past.stage(
            "prepare",
            "train",
            outputs={"e/data/train.parquet": "D", "e/data/train.json": "{}"},
            kind="arithmetic",
            split="train",
            problems=4000,
            seed=0,
        ),
        "model": past.stage(
            "make_model",
            "nano",
            outputs={"e/models/nano/manifest.json": "M", "e/models/nano/model.safetensors": "W"},
            kind="tiny",
            layers=2,
            seed=3,
        ),
    }
    inputs = {"e/data/train.parquet": "D", "e/models/nano/manifest.json": "M"}
    for run in ("a", "b"):
        ids[run] = past.stage(
            "train",
            run,
            inputs,
            {f"e/runs/{run}/manifest.json": f"P{run}"},
            {f"store/f{run}/final": {"model.safetensors": f"W{run}", "config.json": "c"}},
            model="nano",
            train_set="train",
            method="grpo",
            seed=1,
            fingerprint=f"f{run}",
        )
    ids["curves"] = past.stage(
        "collect_curves", "a", {"e/runs/a/manifest.json": "Pa"}, {"e/analysis/a/curves.parquet": "C"}
    )
    ids["figure"] = past.stage(
        "figure", "fig11", {"e/analysis/a/curves.parquet": "C"}, {"e/figures/fig11.pdf": "F", "e/fig11.json": "J"}
    )
    past.put("e/figures/fig11.pdf", "F")
    past.put("e/data/train.parquet", "D")
    return ids


def test_a_figure_leads_to_everything_it_was_made_from_and_to_nothing_else(past):
    ids = a_figure(past)
    value = found(past, "results/e/figures/fig11.pdf")
    assert edges(value) == {
        (None, ids["figure"], None),
        (ids["figure"], ids["curves"], None),
        (ids["curves"], ids["a"], None),
        (ids["a"], ids["data"], None),
        (ids["a"], ids["model"], None),
    }
    run = value["executions"][ids["a"]]
    assert run["about"]["model"] == "nano"
    assert run["git"] == {"revision": "0123456789abcdef", "dirty": True, "changes": "feedc0de"}
    assert value["executions"][ids["model"]]["about"]["weights"] == {"model.safetensors": digest("W")}
    lines = list(as_text(trace(History(past.results), "e/figures/fig11.pdf"), History(past.results)))
    assert [line.strip() for line in lines if line.lstrip().startswith(("prepare", "make_model"))] == [
        "prepare train: generated (arithmetic), split train, problems 4000, seed 0",
        f"make_model nano: made here, layers 2, seed 3; weights sha256 {digest('W')}",
    ]
    text = "\n".join(lines)
    assert "train a: base model nano, data set train, method grpo, seed 1, fingerprint fa" in text
    assert "git 0123456789ab with changes feedc0de; environment 1; not sent to MLflow" in text
    assert lines[-1] == "environment 1: python 3.11.7, torch 2.13.0; on here, Linux"


def test_and_back_from_a_data_set_to_everything_that_was_made_from_it(past):
    ids = a_figure(past)
    value = found(past, past.results / "e/data/train.parquet", descendants=True)
    assert value["executions"].keys() == {ids["a"], ids["b"], ids["curves"], ids["figure"]}
    assert {ids["a"], ids["b"]} == {link["execution"] for link in value["links"]}
    drawn = linked(value, ids["figure"], "e/figures/fig11.pdf")
    assert drawn["execution"] is None
    nothing = found(past, "e/figures/fig11.pdf", descendants=True)
    assert nothing["executions"] == {}
    assert nothing["links"][0]["note"] == "nothing that was recorded was made from it"


def test_an_execution_is_found_by_record_run_stage_or_mlflow_run(past):
    ids = a_figure(past)
    noted = {"experiment_id": "1", "invocations": {}, "records": {ids["a"]: {"run_id": "beef"}}}
    past.put("records/mlflow.json", json.dumps(noted))
    for asked, name in ((ids["b"], "b"), ("b", "b"), ("train b", "b"), ("fig11", "figure"), ("beef", "a")):
        assert found(past, asked)["links"][0]["execution"] == ids[name]
    assert found(past, "a")["executions"][ids["a"]]["mlflow"] == {"experiment_id": "1", "run_id": "beef"}
    past.stage("train", "b", outputs={"other/runs/b/manifest.json": "Q"})
    with pytest.raises(ValueError, match=r"b: several executions .*\(train, e\); .*\(train, other\)"):
        trace(History(past.results), "b")


def test_digests_decide_which_of_several_executions_an_input_came_from(past):
    first = past.stage("prepare", "x", outputs={"e/data/x": "1"})
    reader = past.stage("fit", "x", {"e/data/x": "1"}, {"e/analysis/x": "A"})
    second = past.stage("prepare", "x", outputs={"e/data/x": "2"})
    again = past.stage("fit", "x", {"e/data/x": "2"}, {"e/analysis/x": "B"})
    restored = past.stage("prepare", "x", outputs={"e/data/x": "1"})
    last = past.stage("fit", "x", {"e/data/x": "1"}, {"e/analysis/x": "A"})
    for name, maker in ((reader, first), (again, second), (last, restored)):
        assert linked(found(past, name), name, "e/data/x")["execution"] == maker
    assert edges(found(past, first, descendants=True)) == {
        (None, first, None),
        (first, reader, None),
        (reader, None, None),
    }
    history = History(past.results)
    lines = list(as_text(trace(history, again), history))
    assert any(line.strip().startswith("e/data/x") and "since replaced" in line for line in lines)


def test_what_no_record_made_is_said_where_it_was_read(past):
    past.stage("prepare", "x", outputs={"e/data/x": "1"})
    changed = past.stage("fit", "changed", {"e/data/x": "by hand"}, {"e/analysis/changed": "A"})
    unknown = past.stage("fit", "unknown", {"cwd:mine.csv": "mine"}, {"e/analysis/unknown": "A"})
    past.stage("prepare", "killed", outputs={"e/data/killed": "half"}, status="KILLED")
    half = past.stage("fit", "half", {"e/data/killed": "half"}, {"e/analysis/half": "A"})
    copied = past.stage("fit", "copied", {"e/data/copy": "1"}, {"e/analysis/copied": "A"})
    early = past.stage("fit", "early", {"e/data/late": "late"}, {"e/analysis/early": "A"})
    past.stage("prepare", "late", outputs={"e/data/late": "late"})
    expected = {
        changed: ("e/data/x", "changed, by nothing that was recorded, after prepare x made it"),
        unknown: ("mine.csv", "no record made it: it was there before, or was made by hand or elsewhere"),
        half: ("e/data/killed", "prepare killed, which was to, is KILLED"),
        copied: ("e/data/copy", "prepare x made the same content as e/data/x"),
        early: ("e/data/late", "prepare late made the same later"),
    }
    for name, (path, words) in expected.items():
        link = linked(found(past, name), name, path)
        assert link["execution"] is None
        assert words in link["note"]
    past.put("e/analysis/half", "edited")
    note = found(past, "e/analysis/half")["links"][0]["note"]
    assert note.startswith("changed, by nothing that was recorded, after fit half made it with sha256")


def test_a_run_taken_from_the_store_leads_to_the_execution_that_trained_it(past):
    final = {"store/f/final": {"model.safetensors": "W"}, "store/f/done.json": "done"}
    trained = past.stage(
        "train", "r", {"a/runs/r/run.yaml": "Y"}, {"a/runs/r/manifest.json": "P"}, final, fingerprint="f"
    )
    hit = past.stage(
        "train", "r", {"b/runs/r/run.yaml": "Y"} | final, {"b/runs/r/manifest.json": "P"}, fingerprint="f"
    )
    later = past.stage(
        "train", "r", {"c/runs/r/run.yaml": "Y"} | final, {"c/runs/r/manifest.json": "P"}, fingerprint="f"
    )
    sampled = past.stage("sample", "r", {"b/runs/r/manifest.json": "P"}, {"b/evaluation/r/samples.parquet": "S"})
    assert (sampled, hit, None) in edges(found(past, sampled))
    assert (hit, trained, None) in edges(found(past, sampled))
    assert linked(found(past, later), later, "store/f/final")["execution"] == trained
    assert {hit, later} <= found(past, trained, descendants=True)["executions"].keys()


def test_records_that_do_not_name_the_store_are_led_by_their_fingerprint(past):
    trained = past.stage("train", "r", outputs={"a/runs/r/manifest.json": "P"}, fingerprint="f")
    hit = past.stage("train", "r", outputs={"b/runs/r/manifest.json": "P"}, fingerprint="f")
    past.stage("train", "s", outputs={"b/runs/s/manifest.json": "Q"}, fingerprint="g")
    assert edges(found(past, hit)) == {
        (None, hit, None),
        (hit, trained, "found in the store, where it was trained by"),
    }
    assert edges(found(past, trained)) == {(None, trained, None)}


def test_a_training_killed_before_it_could_record_its_end_is_found_by_its_fingerprint(past):
    """And so is one whose record, of an earlier version, does not name what it left in the store."""
    final = {"store/f/done.json": "done"}
    killed = past.stage("train", "r", status="KILLED", fingerprint="f")
    hit = past.stage("train", "r", final, {"e/runs/r": "P"}, final, fingerprint="f")
    later = past.stage("train", "r", final, {"o/runs/r": "P"}, fingerprint="f")
    assert edges(found(past, later)) == {(None, later, None), (later, hit, None), (hit, killed, "went on from")}
    old = past.stage("train", "s", outputs={"e/runs/s": "Q"}, fingerprint="g")
    final = {"store/g/done.json": "done"}
    hit = past.stage("train", "s", final, {"o/runs/s": "Q"}, final, fingerprint="g")
    assert edges(found(past, hit)) == {
        (None, hit, None),
        (hit, old, "found in the store, where it was trained by"),
    }


def test_attempts_that_a_training_went_on_from_are_among_its_ancestors(past):
    killed = past.stage("train", "r", status="KILLED", fingerprint="f")
    past.stage("train", "other", status="KILLED", fingerprint="g")
    trained = past.stage(
        "train", "r", outputs={"e/runs/r": "P"}, artifacts={"store/f/done.json": "d"}, fingerprint="f"
    )
    past.stage("train", "r", status="FAILED", fingerprint="f")
    assert edges(found(past, trained)) == {(None, trained, None), (trained, killed, "went on from")}


def test_folders_and_the_files_in_them_are_one_thing(past):
    model = past.stage("make_model", "m", outputs={"e/models/m": {"config.json": "c", "sub/weights": "w"}})
    whole = past.stage(
        "train", "whole", {"e/models/m": {"config.json": "c", "sub/weights": "w"}}, {"e/runs/1": "1"}
    )
    part = past.stage("train", "part", {"e/models/m/sub/weights": "w"}, {"e/runs/2": "2"})
    other = past.stage("train", "other", {"e/models/m/sub/weights": "x"}, {"e/runs/3": "3"})
    for name in (whole, part):
        assert (name, model, None) in edges(found(past, name))
    assert (other, model, None) not in edges(found(past, other))
    assert found(past, model, descendants=True)["executions"].keys() == {model, whole, part}
    files = past.stage("make_model", "n", outputs={"e/models/n/config.json": "c", "e/models/n/weights": "w"})
    together = past.stage(
        "train", "t", {"e/models/n": {"config.json": "c", "weights": "w", "own": "o"}}, {"e/runs/4": "4"}
    )
    value = found(past, together)
    assert linked(value, together, "e/models/n/weights")["execution"] == files
    assert linked(value, together, "e/models/n/own")["note"].startswith("no record made it")
    assert together in found(past, files, descendants=True)["executions"]
    past.put("e/models/m/sub/weights", "w")
    assert found(past, "e/models/m/sub/weights")["links"][0]["execution"] == model


def test_no_execution_is_its_own_ancestor_even_where_it_left_its_input_as_it_was(past):
    first = past.stage("touch", "x", {"e/data/x": "1"}, {"e/data/x": "1"})
    second = past.stage("touch", "x", {"e/data/x": "1"}, {"e/data/x": "1"})
    past.stage("a", "a", {"e/b": "b"}, {"e/a": "a"})
    circle = past.stage("b", "b", {"e/a": "a"}, {"e/b": "b"})
    value = found(past, second)
    assert value["executions"].keys() == {first, second}
    assert linked(value, first, "e/data/x")["execution"] is None
    assert len(found(past, circle)["executions"]) == 2
    assert len(found(past, first, descendants=True)["executions"]) == 2


def test_clocks_of_two_machines_that_differ_a_little_do_not_hide_an_ancestor(past):
    slow = past.stage("prepare", "x", outputs={"e/data/x": "1"}, lasts=30)
    path = past.results / f"records/prepare/{slow}.json"
    ahead = json.loads(path.read_text()) | {"ended": "2026-01-01T00:02:01+00:00"}
    path.write_text(json.dumps(ahead))
    reader = past.stage("fit", "x", {"e/data/x": "1"}, {"e/analysis/x": "A"})
    assert (reader, slow, None) in edges(found(past, reader))


def test_what_a_published_data_set_or_model_is_stands_in_the_files_that_were_recorded_with_it(past):
    account = json.dumps(
        {"place": "hub/set", "split": "test", "revision": "main", "commit": "abc", "licence": "MIT"}
    )
    manifest = json.dumps(
        {"weights": "x", "digests": {"model.safetensors": "w1", "config.json": "c"}, "commit": "def"}
    )
    data = past.stage(
        "prepare",
        "aime",
        outputs={"e/data/aime.parquet": "D", "e/data/aime.json": account},
        kind="hub",
        source="aime24",
    )
    model = past.stage(
        "make_model", "q", outputs={"e/models/q/manifest.json": manifest}, kind="hub", id="Qwen/Q", revision="main"
    )
    past.put("e/data/aime.json", account)
    past.put("e/models/q/manifest.json", manifest)
    history = History(past.results)
    (head,) = [line for line in as_text(trace(history, data), history) if line.startswith("prepare")]
    assert head == "prepare aime: published as aime24 at hub/set, split test, revision main, commit abc"
    (head,) = [line for line in as_text(trace(history, model), history) if line.startswith("make_model")]
    assert head == "make_model q: published as Qwen/Q, revision main, commit def; weights sha256 w1"
    past.put("e/data/aime.json", "{}")
    assert "place" not in {name for name, value in found(past, data)["executions"][data]["about"].items() if value}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("results/e/figures/fig12.pdf", "no such file, and no record, run, stage or MLflow run of that name"),
        (
            "results/e/runs/a/manifest.json",
            "no such file; train a made it, and its history is that of record 2026",
        ),
        ("results/e/by-hand.csv", "not recorded; no stage made or read it"),
        ("results/e", "a folder that no stage recorded as a whole; give a file in it"),
        ("elsewhere.txt", "outside the results folder"),
    ],
)
def test_what_cannot_be_traced_is_said(past, tmp_path, asked, words):
    a_figure(past)
    past.put("e/by-hand.csv", "x")
    (tmp_path / "elsewhere.txt").write_text("x")
    with pytest.raises((OSError, ValueError), match=words) as caught:
        lineage([asked], False, False, past.results)
    assert asked in str(caught.value)


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(OSError, match="has no folder 'records'"):
        lineage(["x"], False, False, tmp_path)


def test_thousands_of_records_are_traced_at_once(past):
    """One report of 1500 runs: 4500 executions, each file read by the report too."""
    for run in range(1500):
        past.stage("train", f"r{run}", {"e/data/x": "1"}, {f"e/runs/{run}": f"{run}"})
        past.stage("fit", f"r{run}", {f"e/runs/{run}": f"{run}"}, {f"e/law/{run}": f"L{run}"})
        past.stage("prepare", "x", outputs={"e/data/x": "1"})
    report = past.stage("report", "e", {f"e/law/{run}": f"L{run}" for run in range(1500)}, {"e/report": "R"})
    history = History(past.results)
    start = time.process_time()
    assert len(trace(history, report).links) == 1 + 2 * 1500 + 1499
    for run in (0, 1499):
        assert report in trace(history, f"r{run}", descendants=True).links
    assert time.process_time() - start < 3
