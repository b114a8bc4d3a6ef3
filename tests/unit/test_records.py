"""A stage's record is truthful however the stage ends, and holds no credentials."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_disk import small_disk
from tracked import digest, only_record, python, query, write

from entropy_mechanism import tracking
from entropy_mechanism.credentials import check_address
from entropy_mechanism.tracking.records import record_paths

WRITER = """
import sys, time
from entropy_mechanism import tracking
with tracking.stage("train", sys.argv[2], results=sys.argv[1]) as record:
    for step in range(int(sys.argv[3])):
        record.metric("loss", step / 7, step)
    print("ready", flush=True)
    time.sleep(float(sys.argv[4]))
"""
# Is killed when half of its record's second state is on disk.
HALF_WRITTEN = """
import os, signal, sys
from entropy_mechanism import tracking
ready = []
def fsync(number):
    ready.append(number)
    if len(ready) == 2:
        (half,) = (path for path in os.scandir(sys.argv[1] + "/records/train") if path.name.startswith("."))
        os.truncate(half.path, half.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync
with tracking.stage("train", "x", results=sys.argv[1]):
    pass
"""
# Writes until it fails, and says what it could report and how it failed.
UNTIL_FULL = """
import sys
from entropy_mechanism import tracking
step = 0
try:
    with tracking.stage("train", "x", results=sys.argv[1]) as record:
        while True:
            record.metrics({"loss": step / 7, "rate": 1e-3}, step)
            step += 1
except OSError as error:
    print(step, error.filename, error.strerror, sep="\\n")
"""


def test_record_holds_digests_of_inputs_and_outputs(results, tmp_path):
    source = write(tmp_path / "source.csv", "a,b\n1,2\n")
    model = results / "smoke/models/base"
    with tracking.stage(
        "make_model",
        "base",
        results=results,
        params={"size": {"layers": 2}, "path": Path("x"), "rate": float("nan")},
        inputs=[source],
        outputs=[model],
    ) as record:
        running = only_record(results)
        write(model / "config.json", "{}")
        write(model / "sub/weights.bin", "weights")
        write(model / ".snakemake_timestamp", "")
        record.outputs_also(write(results / "smoke/tables/table1.md", "| 1 |"))
    value = only_record(results)
    assert running["status"] == "RUNNING"
    assert running["inputs"] == value["inputs"]
    assert running["declared"][0]["path"] == "smoke/models/base"
    assert value["status"] == "FINISHED"
    assert value["params"] == {"size": {"layers": 2}, "path": "x", "rate": "nan"}
    assert value["inputs"] == [
        {"path": "source.csv", "base": "cwd", "sha256": digest("a,b\n1,2\n"), "size": 8, "tree": None}
    ]
    folder, table = value["outputs"]
    tree = {"config.json": digest("{}"), "sub/weights.bin": digest("weights")}
    assert folder["tree"] == tree
    assert folder["sha256"] == digest("".join(f"{tree[name]}  {name}\n" for name in sorted(tree)))
    assert folder["size"] == 9
    assert (table["path"], table["base"]) == ("smoke/tables/table1.md", "results")
    assert table["sha256"] == digest("| 1 |")
    assert value["process"]["pid"] == os.getpid()
    assert value["environment"]["packages"]["torch"].startswith("2.")
    assert value["command"] == sys.argv
    assert set(value["git"]) == {"revision", "dirty", "changes"}
    assert tracking.latest_records(results, "make_model")[0].record_id == value["record_id"]
    assert tracking.latest_records(results, "train") == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bad clip bounds"), "FAILED"),
        (SystemExit("no such model"), "FAILED"),
        (SystemExit(1), "FAILED"),
        (SystemExit(75), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(0), "FINISHED"),
    ],
)
def test_a_stage_that_an_exception_ends_says_so_and_passes_it_on(results, error, status):
    with pytest.raises(type(error)), tracking.stage("train", "x", results=results):
        raise error
    value = only_record(results)
    assert value["status"] == status
    if status != "FINISHED":
        assert value["error"].startswith(type(error).__name__)
        assert str(error) in value["error"]


@pytest.mark.parametrize(("missing", "reason"), [("inputs", "No such"), ("outputs", "without writing")])
def test_a_missing_input_or_output_fails_the_stage(results, missing, reason):
    stage = tracking.stage("fit", "x", results=results, **{missing: ["nowhere.json"]})
    with pytest.raises(FileNotFoundError, match=f"{reason}.*nowhere"), stage:
        pass
    assert only_record(results)["status"] == "FAILED"


def test_sigterm_leaves_a_truthful_record(results):
    process = python(WRITER, results, "x", 3, 60)
    process.stdout.readline()
    process.terminate()
    assert process.wait(10) == 143
    process.stdout.close()
    value = only_record(results)
    assert (value["status"], value["error"]) == ("KILLED", "SystemExit: 143")
    assert value["ended"] > value["started"]


def test_a_vanished_process_is_recognised_and_a_living_one_is_not(results):
    living, dead = python(WRITER, results, "living", 2, 60), python(WRITER, results, "dead", 2, 60)
    try:
        for process in (living, dead):
            process.stdout.readline()
        dead.kill()  # not waited for: a zombie still has its process id
        time.sleep(0.2)
        assert tracking.sync(results).error is None
        status = {record.key: record.status for record in tracking.latest_records(results)}
        assert status == {"living": "RUNNING", "dead": "KILLED"}
        runs = query(results, "select name, status, end_time from runs order by name")
        assert [row[:2] for row in runs] == [("train dead", "KILLED"), ("train living", "RUNNING")]
        assert runs[0][2] is not None
        assert query(results, "select count(*) from metrics") == [(4,)]
    finally:
        for process in (living, dead):
            process.kill()
            process.communicate()


def test_a_kill_in_the_middle_of_a_record_leaves_the_state_before_and_no_second_record(results):
    assert python(HALF_WRITTEN, results).wait(60) == -signal.SIGKILL
    assert len(list((results / "records/train").iterdir())) == 2
    with tracking.stage("train", "x", results=results):
        pass
    (killed, ended) = map(tracking.read_record, record_paths(results))
    assert (killed.status, ended.status) == ("RUNNING", "FINISHED")
    assert tracking.latest_records(results) == [ended]
    assert tracking.sync(results).error is None
    assert query(results, "select status from runs where name like 'train %' order by start_time") == [
        ("KILLED",),
        ("FINISHED",),
    ]


@pytest.mark.parametrize(
    "address",
    [
        "https://me:hunter2@host/path",
        "https://hunter2@host",
        "https://me:hunt/er2@host",
        "https://me:hunt@er2@host:5000",
        "HTTPS://me:hunter2@host",
        "postgresql://me:hunter2@host/db",
        "mysql+pymysql://me:hunt@er2@host/db",
        "postgresql://host/db?user=me&password=hunter2",
    ],
)
def test_an_address_with_credentials_is_refused_and_not_shown(tmp_path, address):
    with pytest.raises(ValueError, match=r"found \S+://.*host.*, an address with credentials in it") as caught:
        tracking.sync(tmp_path, address)
    assert not [part for part in ("me:", "=me", "hunt", "er2") if part in str(caught.value)]
    line = [sys.executable, "-m", "entropy_mechanism", "track", "sync", "--tracking-uri", address]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 2
    assert "argument --tracking-uri: found" in done.stderr
    assert not [part for part in ("me:", "=me", "hunt", "er2") if part in done.stderr]


@pytest.mark.parametrize(
    "address",
    [
        "https://host:5000/path",
        "postgresql://me@host/db",
        "sqlite:////home/a:b@c/mlflow.db",
        "databricks",
        "./mlruns",
    ],
)
def test_an_address_without_credentials_is_taken_as_it_is(address):
    assert check_address(address) == address


def test_a_full_disk_under_the_records_keeps_what_was_reported_and_is_named(results):
    with small_disk(results / "records", "256k") as disk:
        writer = python(UNTIL_FULL, results, stderr=subprocess.PIPE)
        text, warning = writer.communicate(timeout=60)
        reported, name, reason = text.splitlines()
        assert int(reported) > 100
        assert (Path(name).parent, Path(name).suffixes[-2:]) == (disk.folder / "train", [".metrics", ".jsonl"])
        assert reason == "No space left on device"
        assert "keeps the status RUNNING" in warning
        assert name.split(".metrics")[0] in warning
        full = tracking.sync(results)
        assert "No space left on device" in full.error
        disk.enlarge("10m")
        assert tracking.sync(results).error is None
        assert tracking.sync(results).sent == 0
        (record,) = tracking.latest_records(results)
    assert record.status == "KILLED"
    assert "a full disk" in record.error
    points = query(results, "select key, step, value from metrics order by key, step")
    steps = range(int(reported))
    assert points == [("loss", step, step / 7) for step in steps] + [("rate", step, 1e-3) for step in steps]


def test_a_line_that_did_not_fit_leaves_the_lines_after_it_readable(results):
    with small_disk(results / "records", "64k") as disk, tracking.stage("train", "x", results=results) as record:
        record.metric("loss", 0.5, 0)
        disk.fill()
        size = Path(f"{record.path.with_suffix('')}.metrics.jsonl").stat().st_size
        lost = {f"metric {number}": 1.0 for number in range(3000)}
        with pytest.raises(OSError, match="No space left"):
            record.metrics(lost, 1)
        assert Path(f"{record.path.with_suffix('')}.metrics.jsonl").stat().st_size == size
        disk.empty()
        record.metric("loss", 0.25, 2)
        assert tracking.sync(results).error is None
        assert query(results, "select step, value from metrics order by step") == [(0, 0.5), (2, 0.25)]


def test_records_hold_no_credentials(results, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(sys, "argv", ["x", "--tracking-uri=https://me:secret@host/path"])
    with (
        pytest.raises(ValueError, match="secret"),
        tracking.stage("fit", "x", results=results, params={"uri": "http://me:secret@host"}),
    ):
        raise ValueError("no answer from http://me:sec@secret@host")
    tracking.sync(results)
    for path in (results / "records").rglob("*.json"):
        assert "secret" not in path.read_text()
    assert only_record(results)["command"] == ["x", "--tracking-uri=https://***@host/path"]


def test_importing_the_package_loads_neither_mlflow_nor_torch():
    code = (
        "import sys, entropy_mechanism.tracking;"
        "print(sorted({'mlflow', 'torch', 'pandas', 'numpy', 'yaml', 'sqlalchemy'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
