"""A real MLflow server that can be killed and started again, and a gate before it that asks for a password."""

import base64
import hashlib
import http.client
import json
import math
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

QUIETLY = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class Server:
    """`mlflow server` with its store in a folder."""

    def __init__(self, folder: Path) -> None:
        """Choose a port; nothing is started yet."""
        self.folder = folder
        folder.mkdir(parents=True)
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.port = unused.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it; `wait` until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "log.txt").open("a") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=os.environ | QUIETLY,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, seconds: float = 120) -> "Server":
        """Return when it answers."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                    return self
            except OSError:
                assert time.monotonic() < deadline, (self.folder / "log.txt").read_text()[-3000:]
                time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL to it and to all its processes."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def query(self, sql: str, *values: object) -> list[tuple]:
        """Rows of the store, read past the server."""
        with sqlite3.connect(self.folder / "mlflow.db") as connection:
            return connection.execute(sql, values).fetchall()

    def assert_has_all(self, results: Path) -> None:
        """Every record, point and file of a results folder is here exactly once, and nothing else is."""
        records = [json.loads(path.read_text()) for path in sorted(results.glob("records/*/*.json"), key=_name)]
        invocations = list(results.glob("records/invocation-*.json"))
        assert len(records) > 5
        runs = dict(self.query("select value, run_uuid from tags where key = 'record_id'"))
        assert sorted(runs) == sorted(record["record_id"] for record in records)
        assert self.query("select count(*) from runs") == [(len(records) + len(invocations),)]
        owners = {series["path"]: record["record_id"] for record in records for series in record["series"]}
        for record in records:
            run = runs[record["record_id"]]
            assert self.query("select status from runs where run_uuid = ?", run) == [(record["status"],)]
            mine = [item["path"] for item in record["series"] if owners[item["path"]] == record["record_id"]]
            expected = sorted(point for path in mine for point in _points(results / path))
            assert sorted(self.query("select key, step, value from metrics where run_uuid = ?", run)) == expected
            (folder,) = (self.folder / "artifacts").glob(f"*/{run}/artifacts")
            stored = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
            sent = json.loads(stored.pop("record.json").read_text())
            assert sent["record_id"] == record["record_id"]
            for series in record["series"]:  # of a stage that has no series of its own elsewhere
                stored.pop(Path(series["path"]).name, None)
            kept = {
                f"outputs/{path}": digest
                for file in (*record["outputs"], *record["artifacts"])
                for path, digest in _members(file).items()
            }
            found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in stored.items()}
            assert set(found.values()) == set(kept.values())  # the same bytes are there once
            assert found.items() <= kept.items()


def _members(file: dict) -> dict[str, str]:
    """Path -> SHA-256 of a recorded file, or of the files in a recorded folder."""
    if file["tree"] is None:
        return {file["path"]: file["sha256"]}
    return {f"{file['path']}/{name}": digest for name, digest in file["tree"].items()}


def _name(path: Path) -> str:
    return path.name


def _points(series: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) of every finite number in a series, with names that need no change for MLflow."""
    points = []
    for line in series.read_text().splitlines():
        values = json.loads(line)
        step, _ = values.pop("step"), values.pop("time")
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        points += [(name, step, float(value)) for name, value in numbers.items() if math.isfinite(value)]
    return points


class Gate(ThreadingHTTPServer):
    """Passes requests on to a server when they carry the right name and password."""

    daemon_threads = True

    def __init__(self, port: int, user: str, password: str) -> None:
        """Listen on a port of its own, before the server on `port`."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = port
        self.key = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.refused = self.passed = 0
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != self.server.key:
            self.server.refused += 1
            self._answer(401, b"who are you?", [("WWW-Authenticate", "Basic")])
            return
        self.server.passed += 1
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        names = ("Host", "Connection", "Authorization", "Accept-Encoding")
        headers = {name: value for name, value in self.headers.items() if name.title() not in names}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        self._answer(answer.status, answer.read(), [("Content-Type", answer.getheader("Content-Type") or "")])
        connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass

    def _answer(self, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        for header in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""
