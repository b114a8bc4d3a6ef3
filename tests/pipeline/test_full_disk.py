"""A real training whose disk for records becomes full."""

import json
import os
import signal
import sqlite3

import pytest
from small_disk import small_disk
from trainers import STEPS, AfterRow, Trainers, wait_until_stopped

from entropy_mechanism import tracking


@pytest.fixture
def trainers(tmp_path):
    trainers = Trainers(tmp_path)
    yield trainers
    trainers.close()


def test_a_disk_that_becomes_full_under_the_records_costs_another_attempt_and_no_point(trainers):
    results = trainers.root / "results"
    with small_disk(results / "records", "1m") as disk:
        pid = trainers.start(*trainers.command("results"), at=AfterRow(5), number=signal.SIGSTOP)
        wait_until_stopped(pid)
        try:
            disk.fill()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert trainers.wait() == 1
        last = trainers.text().splitlines()[-1]
        (path,) = (results / "records/train").glob("*.json")
        place = path.relative_to(trainers.root)
        assert last.startswith(
            f"error: no space left on the file system of {place}; free some, then run the same "
        )
        assert trainers.rows("results") == STEPS + 1  # the training itself was not disturbed
        assert not (trainers.store("results") / "failed.json").exists()
        assert json.loads(path.read_text())["status"] == "RUNNING"

        disk.empty()
        trainers.finish(*trainers.command("results"))
        assert "nothing to train" in trainers.text()
        assert tracking.sync(results).error is None
        lines = (trainers.store("results") / "metrics.jsonl").read_text().splitlines()
    expected = {
        (name, row["step"], float(value))
        for row in map(json.loads, lines)
        for name, value in row.items()
        if value is not None and name not in ("step", "time")
    }
    with sqlite3.connect(results / "mlflow.db") as store:
        found = store.execute("select key, step, value from metrics").fetchall()
        status = store.execute("select status from runs order by start_time").fetchall()
    store.close()
    assert sorted(found) == sorted(expected)
    assert status == [("KILLED",), ("FINISHED",)]
