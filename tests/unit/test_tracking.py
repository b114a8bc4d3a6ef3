"""Records, sending and audit, against a real MLflow SQLite store that is read back with plain SQL."""

import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_disk import small_disk

from entropy_mechanism import tracking
from entropy_mechanism.credentials import check_address
from entropy_mechanism.paths import ARTIFACT_LIMIT_VARIABLE

WRITER = """
import sys, time
from entropy_mechanism import tracking
with tracking.stage("train", sys.argv[2], results=sys.argv[1]) as record:
    for step in range(int(sys.argv[3])):
        record.metric("loss", step / 7, step)
    print("ready", flush=True)
    time.sleep(float(sys.argv[4]))
"""
# The same points, all of them between a word to begin and the answer, so that writers write at the same time.
TOGETHER = """
import sys
from entropy_mechanism import tracking
with tracking.stage("train", sys.argv[2], results=sys.argv[1]) as record:
    print("ready", flush=True)
    sys.stdin.readline()
    for step in range(int(sys.argv[3])):
        record.metric("loss", step / 7, step)
    print("written", flush=True)
    sys.stdin.readline()
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


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A migrated SQLite file, made once by the first use of a results folder: migrations take seconds."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "records").mkdir()
    assert tracking.sync(folder, experiment="another") == tracking.SyncResult()
    return folder / "mlflow.db"


@pytest.fixture
def results(tmp_path, empty_store, monkeypatch):
    """A results folder with an empty store; the working directory is beside it."""
    monkeypatch.delenv(tracking.INVOCATION_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def digest(data):
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()


def only_record(results):
    (path,) = (results / "records").glob("*/*.json")
    return json.loads(path.read_text())


def query(results, sql, *values):
    with sqlite3.connect(results / "mlflow.db") as connection:
        return connection.execute(sql, values).fetchall()


def tags(results, run):
    return dict(query(results, "select key, value from tags where run_uuid = ?", run))


def run_of(results, record_id):
    ((run,),) = query(
        results, "select run_uuid from tags where key = 'record_id' and value = ?", record_id
    )  # fails when there are two
    return run


def python(code, *arguments, **options):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


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


def test_missing_values_stay_in_the_series_and_are_not_sent(results):
    series = write(
        results / "store/f00d/metrics.jsonl",
        '{"step": 1, "entropy/mean": 0.5, "law/residual": null, "rate": NaN, "top": Infinity}\n'
        '{"step": 2, "entropy/mean": 0.25, "note": "text"}\n'
        '{"step": 3, "entropy/mean": 0.1',
    )
    with tracking.stage("train", "x", results=results, metrics_file=series) as record:
        record.metrics({"pass@8": 1, "none": None, "nan": float("nan")}, 7)
        with pytest.raises(ValueError, match="reserved"):
            record.metric("step", 1.0)
    own = (results / "records/train" / f"{record.record_id}.metrics.jsonl").read_text()
    assert {"step": 7, "pass@8": 1.0, "none": None, "nan": None}.items() <= json.loads(own).items()
    assert tracking.sync(results).points == 3
    points = query(results, "select key, step, value, is_nan from metrics order by key, step")
    assert points == [("entropy/mean", 1, 0.5, 0), ("entropy/mean", 2, 0.25, 0), ("pass_8", 7, 1.0, 0)]


def test_sync_sends_tree_params_points_tags_and_files_once(results, monkeypatch):
    monkeypatch.setenv(tracking.INVOCATION_VARIABLE, "night-1")
    monkeypatch.setenv(ARTIFACT_LIMIT_VARIABLE, "1")
    params = {"method": {"name": "kl_cov", "k": 2e-3}, "long": "x" * 9000, "a#b": 1, "a@b": 2}
    params |= {f"p{i}": i for i in range(230)}
    small, large = results / "smoke/analysis/law.json", results / "smoke/data/big.json"
    with tracking.stage("fit", "law", results=results, params=params, outputs=[small, large]) as record:
        write(small, '{"a": 1}')
        write(large, "x" * (2**20 + 1))
        for step in range(1500):
            record.metrics({"loss": step / 3, "grad/norm": -step}, step)
    first = tracking.sync(results)
    assert (first.points, first.pending, first.error) == (3000, 0, None)
    second = tracking.sync(results)
    assert (second.sent, second.points, second.artifacts, second.pending) == (0, 0, 0, 0)

    experiment, run = tracking.run_ids(results)[record.record_id]
    assert run == run_of(results, record.record_id)
    ((parent,),) = query(results, "select run_uuid from runs where name = 'night-1'")
    found = tags(results, run)
    assert found["mlflow.parentRunId"] == parent
    assert (found["stage"], found["key"]) == ("fit", "law")
    assert found["sha256.smoke/analysis/law.json"] == digest('{"a": 1}')
    stored = dict(query(results, "select key, value from params where run_uuid = ?", run))
    assert len(stored) == 235
    assert (stored["method.name"], stored["method.k"]) == ("kl_cov", "0.002")
    assert stored["long"] == "x" * 5999 + "…"
    assert {stored["a_b"], stored["a_b-2"]} == {"1", "2"}
    points = query(results, "select key, step, value from metrics where run_uuid = ?", run)
    expected = [("loss", step, step / 3) for step in range(1500)]
    assert sorted(points) == sorted(expected + [("grad/norm", step, -step) for step in range(1500)])
    status, start, end = query(results, "select status, start_time, end_time from runs where run_uuid = ?", run)[0]
    assert status == "FINISHED"
    assert abs(start / 1000 - time.time()) < 60
    assert start <= end
    folder = results / "mlartifacts" / run / "artifacts"
    assert json.loads((folder / "record.json").read_text())["record_id"] == record.record_id
    assert (folder / "outputs/smoke/analysis/law.json").read_text() == '{"a": 1}'
    assert not (folder / "outputs/smoke/data").exists()
    assert query(results, "select experiment_id from runs where run_uuid = ?", run) == [(int(experiment),)]


def test_a_file_replaced_before_it_was_sent_is_not_passed_off_as_the_recorded_one(results):
    path = results / "smoke/analysis/law.json"
    with tracking.stage("fit", "law", results=results, outputs=[path]) as record:
        write(path, "1")
    write(path, "2")
    tracking.sync(results)
    folder = results / "mlartifacts" / run_of(results, record.record_id) / "artifacts"
    assert [item.name for item in folder.iterdir()] == ["record.json"]


def test_a_sender_killed_between_batches_leaves_every_point_once(results):
    with tracking.stage("train", "x", results=results) as record:
        for step in range(4500):
            record.metric("loss", step / 3, step)
    killed = python(
        """
import os, signal, sys
from mlflow import MlflowClient
from entropy_mechanism import tracking
send, count = MlflowClient.log_batch, 0
def dying(self, *arguments, **options):
    global count
    send(self, *arguments, **options)
    count += bool(options.get("metrics"))
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
MlflowClient.log_batch = dying
tracking.sync(sys.argv[1])
""",
        results,
    )
    assert killed.wait(60) == -signal.SIGKILL
    killed.stdout.close()
    assert query(results, "select count(*) from metrics") == [(2000,)]
    assert record.record_id not in tracking.run_ids(results)
    assert tracking.sync(results).error is None
    run = run_of(results, record.record_id)
    points = query(results, "select run_uuid, step, value from metrics order by step")
    assert points == [(run, step, step / 3) for step in range(4500)]


def test_an_unreachable_server_costs_seconds_and_nothing_is_lost(results, monkeypatch):
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    for key in "ab":
        with tracking.stage("train", key, results=results) as record:
            record.metric("loss", 1.5, 3)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    begin = time.monotonic()
    down = tracking.sync(results, f"http://127.0.0.1:{port}")
    assert time.monotonic() - begin < 10
    assert (down.sent, down.pending) == (0, 2)
    assert "\n" not in down.error
    up = tracking.sync(results)
    assert (up.sent, up.points, up.pending, up.error) == (2, 2, 0, None)
    assert len(query(results, "select * from metrics")) == 2


def test_a_server_that_never_answers_costs_seconds(results, monkeypatch):
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    with tracking.stage("train", "x", results=results):
        pass
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        down = tracking.sync(results, f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - begin < 20
    assert (down.sent, down.pending) == (0, 1)
    assert tracking.sync(results).pending == 0


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


def test_eight_processes_writing_at_once_lose_no_point(results):
    writers = [python(TOGETHER, results, f"w{i}", 2000, stdin=subprocess.PIPE) for i in range(8)]
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 8
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    sent = [tracking.sync(results)]  # while they write
    assert [writer.stdout.readline() for writer in writers] == ["written\n"] * 8
    for writer in writers:
        writer.communicate("\n", timeout=60)
        assert writer.returncode == 0
    sent.append(tracking.sync(results))
    assert [(result.error, result.pending) for result in sent][-1] == (None, 0)
    assert sum(result.points for result in sent) == 16000
    points = query(
        results,
        "select r.name, m.step, m.value from metrics m join runs r on r.run_uuid = m.run_uuid",
    )
    assert sorted(points) == [(f"train w{i}", step, step / 7) for i in range(8) for step in range(2000)]


@pytest.mark.parametrize("seconds", [0.0, 0.4, 1.0, 2.0])
def test_a_sender_killed_while_it_makes_the_store_leaves_none_that_cannot_be_used(results, seconds):
    (results / "mlflow.db").unlink()
    with tracking.stage("fit", "x", results=results) as record:
        pass
    code = "import sys; from entropy_mechanism import tracking; tracking.sync(sys.argv[1])"
    sender = python(code, results)
    begun, deadline = time.monotonic(), time.monotonic() + 60
    while not any(path.stat().st_size for path in results.glob("*.db*")) and not list(results.glob(".mlflow*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(seconds)
    sender.kill()
    sender.communicate()
    assert time.monotonic() - begun < 60
    assert tracking.sync(results).error is None
    assert run_of(results, record.record_id)
    assert list(results.glob(".mlflow*")) == []


def test_a_full_disk_under_the_store_loses_nothing(results, empty_store):
    room = empty_store.stat().st_size // 1024 + 300
    with small_disk(results / "small", f"{room}k") as disk:
        shutil.copy(empty_store, disk.folder / "mlflow.db")
        with tracking.stage("train", "x", results=results, outputs=[results / "smoke/a.json"]) as record:
            write(results / "smoke/a.json", "{}")
            for step in range(6000):
                record.metric("loss", step / 7, step)
        full = tracking.sync(results, f"sqlite:///{disk.folder}/mlflow.db")
        assert full.pending == 1
        assert "full" in full.error
        disk.enlarge("100m")
        assert tracking.sync(results, f"sqlite:///{disk.folder}/mlflow.db").error is None
        with sqlite3.connect(disk.folder / "mlflow.db") as store:
            points = store.execute("select key, step, value from metrics order by step").fetchall()
            assert store.execute("select status from runs").fetchall() == [("FINISHED",)]
        store.close()
    assert points == [("loss", step, step / 7) for step in range(6000)]
    assert len(list((results / "mlartifacts").glob("*/artifacts/outputs/smoke/a.json"))) == 1


def test_a_full_disk_under_the_artifacts_loses_none(results):
    with small_disk(results / "mlartifacts", "200k") as disk:
        paths = [results / f"smoke/tables/{name}.md" for name in "ab"]
        with tracking.stage("table", "x", results=results, outputs=paths) as record:
            for path in paths:
                write(path, path.name * 50_000)
        full = tracking.sync(results)
        assert full.pending == 1
        assert "No space left on device" in full.error
        disk.enlarge("10m")
        assert tracking.sync(results).error is None
        folder = disk.folder / run_of(results, record.record_id) / "artifacts"
        assert [(folder / f"outputs/smoke/tables/{path.name}").read_text() for path in paths] == [
            path.read_text() for path in paths
        ]
        assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["a.md", "b.md", "record.json"]


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


def test_two_senders_at_once_send_each_record_once(results):
    for i in range(20):
        with tracking.stage("grade", str(i), results=results) as record:
            record.metric("score", i, 0)
    with ThreadPoolExecutor(2) as pool:
        sent = [future.result().sent for future in [pool.submit(tracking.sync, results) for _ in range(2)]]
    assert query(results, "select count(*) from runs") == [(20,)]
    assert query(results, "select count(*) from metrics") == [(20,)]
    assert sorted(sent) == [0, 20]


def test_a_new_store_gets_everything_again(results, empty_store):
    with tracking.stage("fit", "law", results=results):
        pass
    assert tracking.sync(results).sent == 1
    time.sleep(0.01)
    shutil.copy(empty_store, results / "other.db")
    assert tracking.sync(results, f"sqlite:///{results}/other.db").sent == 1
    assert tracking.sync(results, f"sqlite:///{results}/other.db").sent == 0
    assert tracking.sync(results, f"sqlite:///{results}/other.db", resend=True).sent == 1


def test_a_resumed_series_continues_in_the_run_of_the_last_attempt_only(results):
    series = results / "store/f00d/metrics.jsonl"
    write(series, "".join(f'{{"step": {step}, "loss": 1}}\n' for step in range(3)))
    with tracking.stage("train", "x", results=results, metrics_file=series):
        tracking.sync(results)  # sent while it runs, as by the follower
    first = tracking.latest_records(results)[0].record_id
    with tracking.stage("train", "x", results=results, metrics_file=series) as second, series.open("a") as lines:
        lines.write('{"step": 3, "loss": 1}\n')
    tracking.sync(results)
    for record_id, count in ((first, 3), (second.record_id, 4)):
        steps = query(
            results, "select step from metrics where run_uuid = ? order by step", run_of(results, record_id)
        )
        assert [step for (step,) in steps] == list(range(count))


def test_audit_finds_a_flipped_byte_a_missing_file_and_an_unrecorded_one(results):
    run, data, model = results / "smoke/runs/a", results / "smoke/data", results / "smoke/models/m"
    with tracking.stage("train", "a", results=results, outputs=[run / "metrics.parquet"]):
        write(run / "metrics.parquet", "first")
    with tracking.stage("prepare", "x", results=results, outputs=[data / "x.parquet", model]) as record:
        write(data / "x.parquet", "rows")
        write(model / "weights", "abc")
        record.artifact(write(results / "smoke/analysis/notes.md", "n"))
    with tracking.stage("train", "a", results=results, outputs=[run / "metrics.parquet"]):
        write(run / "metrics.parquet", "second")
    assert tracking.audit(results) == []
    write(model / "weights", "abd")
    (data / "x.parquet").unlink()
    write(results / "smoke/figures/fig11.pdf", "by hand")
    write(results / "store/f00d/weights", "not audited")
    write(run / "metrics.parquet", "third")
    assert [(finding.kind, finding.path) for finding in tracking.audit(results)] == [
        ("missing", "smoke/data/x.parquet"),
        ("unrecorded", "smoke/figures/fig11.pdf"),
        ("changed", "smoke/models/m/weights"),
        ("changed", "smoke/runs/a/metrics.parquet"),
    ]
    with tracking.stage("train", "a", results=results, outputs=[run / "metrics.parquet"]):
        assert "smoke/runs/a/metrics.parquet" not in [found.path for found in tracking.audit(results)]
    write(results / "records/train/20200101T000000.000000Z-00000000.json", "{")
    assert [found.kind for found in tracking.audit(results)].count("unreadable") == 1


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


FOLLOWER = """
import sys
from entropy_mechanism.tracking import follow
follow(sys.argv[1], None, "entropy-mechanism", "night-1", int(sys.argv[2]), interval=0.2)
"""


@pytest.mark.parametrize("end", ["finish", "parent", "sigterm"])
def test_the_follower_sends_while_the_workflow_runs_and_ends_with_it(results, monkeypatch, end):
    monkeypatch.setenv(tracking.INVOCATION_VARIABLE, "night-1")
    parent = subprocess.Popen(["sleep", "60"])
    follower = python(FOLLOWER, results, parent.pid)
    try:
        with tracking.stage("train", "x", results=results) as record:
            for step in (0, 1):
                record.metric("loss", 1.0, step)
                deadline = time.monotonic() + 20
                while len(query(results, "select 1 from metrics")) <= step and time.monotonic() < deadline:
                    time.sleep(0.1)
                assert len(query(results, "select 1 from metrics")) == step + 1
            record.metric("loss", 1.0, 2)
        if end == "finish":
            result = tracking.finish(results, None, tracking.EXPERIMENT, "night-1", "FAILED")
            assert (result.pending, result.error) == (0, None)
        elif end == "parent":
            parent.kill()
        else:
            follower.terminate()
        assert follower.wait(20) == 0
    finally:
        for process in (parent, follower):
            process.kill()
            process.wait()
        follower.stdout.close()
    assert query(results, "select step from metrics order by step") == [(0,), (1,), (2,)]
    status = dict(query(results, "select name, status from runs"))
    workflow = {"finish": "FAILED", "parent": "KILLED", "sigterm": "RUNNING"}[end]
    assert status == {"train x": "FINISHED", "night-1": workflow}
    assert tags(results, run_of(results, record.record_id))["stage"] == "train"


def test_a_mistyped_results_folder_is_not_created(tmp_path):
    assert "nothing was recorded" in tracking.sync(tmp_path / "result").error
    assert not (tmp_path / "result").exists()


def test_importing_the_package_loads_neither_mlflow_nor_torch():
    code = (
        "import sys, entropy_mechanism.tracking;"
        "print(sorted({'mlflow', 'torch', 'pandas', 'numpy', 'yaml', 'sqlalchemy'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
