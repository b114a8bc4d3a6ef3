"""Sending that is interrupted, shared or refused loses nothing and sends nothing twice."""

import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from small_disk import small_disk
from tracked import python, query, run_of, write

from entropy_mechanism import tracking

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


def test_two_senders_at_once_send_each_record_once(results):
    for i in range(20):
        with tracking.stage("grade", str(i), results=results) as record:
            record.metric("score", i, 0)
    with ThreadPoolExecutor(2) as pool:
        sent = [future.result().sent for future in [pool.submit(tracking.sync, results) for _ in range(2)]]
    assert query(results, "select count(*) from runs") == [(20,)]
    assert query(results, "select count(*) from metrics") == [(20,)]
    assert sorted(sent) == [0, 20]
