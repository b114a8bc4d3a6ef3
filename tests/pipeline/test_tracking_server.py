"""The workflow with a real MLflow server, which is killed and started again, or asks for a password."""

import contextlib
import json
import secrets
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from mlflow_server import Gate, Server
from repository import REPOSITORY, Workspace, copy_repository

RUN = "nano--train--grpo--s1"
STEPS = 210
USER, PASSWORD = f"user-{secrets.token_hex(6)}", f"password-{secrets.token_hex(6)}"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A copy of the repository with data and model of an experiment of one run."""
    workspace = Workspace(copy_repository(tmp_path_factory.mktemp("prepared") / "repository"))
    experiment = yaml.safe_load((REPOSITORY / "config/experiments/smoke.yaml").read_text())
    experiment["runs"][0]["methods"] = ["grpo"]
    experiment["evaluation"]["compare_with"] = ["base"]
    experiment["figures"], experiment["tables"] = {"fig01": {}}, {}
    experiment["data"]["validation"]["problems"] = 10
    experiment["training"] |= {"steps": STEPS, "validate_every": 10, "checkpoint_every": 50}
    (workspace.root / "config/experiments/quick.yaml").write_text(yaml.safe_dump(experiment))
    workspace.snakemake("data", "models", "--config", "experiment=quick")
    return workspace


@pytest.fixture
def ready(prepared, tmp_path):
    """A copy of that, in which only the training is left to do."""
    shutil.copytree(prepared.root, tmp_path / "repository", symlinks=True)
    return Workspace(tmp_path / "repository")


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "server")
    server.start()
    yield server.wait()
    server.kill()


@contextlib.contextmanager
def training(workspace, address, **environment):
    """The workflow, as it runs: its process. It must end well, and its output is in `text` of that."""
    process = subprocess.Popen(
        workspace.command("training", "--config", "experiment=quick", f"tracking_uri={address}"),
        cwd=workspace.root,
        env=workspace.environment | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
        process.text = process.communicate(timeout=500)[0]
        assert process.returncode == 0, process.text[-5000:]
    finally:
        process.kill()
        process.communicate()


def rows(workspace):
    return sum(path.read_bytes().count(b"\n") for path in workspace.results.glob("store/*/metrics.jsonl"))


def wait_for_row(workspace, process, number):
    deadline = time.monotonic() + 200
    while rows(workspace) < number:
        assert process.poll() is None, process.communicate()[0][-5000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(workspace):
    """When the training ended, in seconds since 1970."""
    return max(path.stat().st_mtime for path in (workspace.results / "records/train").glob("*.json"))


@pytest.mark.parametrize("again", [True, False], ids=["started again", "gone for good"])
def test_a_server_killed_in_the_middle_of_a_run_costs_no_point_and_no_time(ready, server, again):
    with training(ready, server.address) as process:
        wait_for_row(ready, process, STEPS // 3)
        deadline = time.monotonic() + 20
        while not server.query("select 1 from metrics"):
            assert time.monotonic() < deadline, "nothing arrived before the server was killed"
            time.sleep(0.1)
        server.kill()
        arrived = server.query("select count(*) from metrics")
        wait_for_row(ready, process, 2 * STEPS // 3)
        if again:
            server.start()
    assert time.time() - ended(ready) < 30
    assert "nothing is lost, sent again later" in process.text
    (record,) = (json.loads(path.read_text()) for path in ready.results.glob("records/train/*.json"))
    assert record["status"] == "FINISHED"
    if not again:
        assert server.query("select count(*) from metrics") == arrived
        assert "pending" in process.text
        server.start()
    server.wait()
    done = ready.cli("track", "sync", "--tracking-uri", server.address)
    assert " 0 pending" in done.stdout
    server.assert_has_all(ready.results)
    repeated = ready.cli("track", "sync", "--tracking-uri", server.address)
    assert "0 records sent (0 points, 0 files), 0 pending" in repeated.stdout
    server.assert_has_all(ready.results)


class Watch(threading.Thread):
    """Command lines of all processes, as every user can read them, until it is closed."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen, self.over = set(), threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen.add(path.read_bytes())

    def close(self):
        self.over.set()
        self.join()
        return self.seen


def files_that_tell(folder):
    """Files below a folder in which the name or the password stands."""
    words = (USER.encode(), PASSWORD.encode())
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if any(word in path.read_bytes() for word in words)]


def test_a_password_from_the_environment_opens_the_server_and_is_written_nowhere(ready, server):
    path = ready.root / "config/experiments/quick.yaml"
    path.write_text(path.read_text().replace(f"steps: {STEPS}", "steps: 20"))  # nothing happens on the way
    gate, watch = Gate(server.port, USER, PASSWORD), Watch()
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    with training(ready, gate.address, **dict(zip(names, (USER, PASSWORD), strict=True))) as process:
        pass
    seen = watch.close()
    assert any(b"track\0follow" in line and gate.address.encode() in line for line in seen)
    assert not [line for line in seen if USER.encode() in line or PASSWORD.encode() in line]
    assert USER not in process.text
    assert PASSWORD not in process.text
    assert "pending" not in process.text
    assert gate.passed > 10
    assert gate.refused == 0
    server.assert_has_all(ready.results)
    assert files_that_tell(ready.root) == []
    assert files_that_tell(server.folder) == []

    ready.cli("resolve", *f"--experiment config/experiments/quick.yaml --run {RUN} --output run.yaml".split())
    for environment in ({}, dict(zip(names, (USER, "a-wrong-one"), strict=True))):
        begin = time.monotonic()
        refused = subprocess.run(
            [sys.executable, "-m", "entropy_mechanism", "track", "sync", "--tracking-uri", gate.address],
            cwd=ready.root,
            env=ready.environment | environment,
            capture_output=True,
            text=True,
        )
        assert time.monotonic() - begin < 30
        assert refused.returncode == 1
        assert "1 pending" in refused.stdout
        assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in refused.stdout
        assert USER not in refused.stdout + refused.stderr
        assert "a-wrong-one" not in refused.stdout + refused.stderr


def test_an_address_with_a_password_stops_the_workflow_before_any_job_without_showing_it(workspace):
    address = f"https://{USER}:{PASSWORD}@mlflow.example.org/path"
    done = workspace.snakemake("--config", "experiment=smoke", f"tracking_uri={address}", check=False)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert "tracking_uri: found https://***@mlflow.example.org/path, an address with credentials in it" in line
    assert PASSWORD not in done.stdout
    assert USER not in done.stdout
    assert files_that_tell(workspace.root) == []
    assert not list(workspace.results.glob("s*"))
