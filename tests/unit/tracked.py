"""Records and stores, read back without the package: JSON from the file, runs from SQLite with plain SQL."""

import hashlib
import json
import sqlite3
import subprocess
import sys


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
