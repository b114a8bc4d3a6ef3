"""What is published in a shared store, taken from it, and passed over."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time

import pytest
from small_disk import small_disk

from entropy_mechanism.stages import shared

NAME = "0123456789abcdef"
# Root may write everywhere unless it gives that up.
AS_ANYBODY = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.fixture
def run(tmp_path):
    """A run's folder in a store, as training leaves it."""
    return make_run(tmp_path / "mine/store" / NAME)


def make_run(folder):
    for name in ("final/model.safetensors", "tokens/step-000000.parquet", "checkpoints/step-000040/state.pt"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(name.encode() * 1000)
    for name in ("metrics.jsonl", "done.json", "lock"):
        (folder / name).write_text(name)
    return folder


def publish(run, store, **provenance):
    shared.publish(store, NAME, {name: run / name for name in shared.RUN}, provenance)


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_published_is_what_stands_there_with_digests_and_provenance(run, store):
    publish(run, store, record_id="r1", params={"uri": "https://me:hunter2@host"})
    files = tree(store / NAME)
    marker = json.loads(files.pop("published.json"))
    wanted = ["done.json", "final/model.safetensors", "metrics.jsonl", "tokens/step-000000.parquet"]
    assert sorted(files) == wanted
    assert files == {name: (run / name).read_bytes() for name in wanted}
    assert marker["digests"] == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert (marker["record_id"], marker["params"]) == ("r1", {"uri": "https://***@host"})
    assert os.listdir(store) == [NAME]
    assert shared.find(store, NAME) == store / NAME


def test_nothing_is_shared_without_a_shared_store(run, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    publish(run, None)
    assert shared.find(None, NAME) is None
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_keeps_no_token_records_is_published_without(run, store):
    shutil.rmtree(run / "tokens")
    publish(run, store)
    assert shared.find(store, NAME)
    assert not (store / NAME / "tokens").exists()


def test_a_taken_run_shows_the_published_files_by_links_and_nothing_of_an_own_attempt(run, store, tmp_path):
    publish(run, store)
    other = make_run(tmp_path / "yours/store" / NAME)
    for name in ("failed.json", "best/step-000003/state.pt", "tokens/step-000001.parquet"):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_text("mine")
    assert shared.take(other, store, NAME) == store / NAME
    expected = {name: content for name, content in tree(store / NAME).items() if name != "published.json"}
    found = {name: (other / name).read_bytes() for name in expected}
    assert found == expected
    assert sorted(path.name for path in other.iterdir()) == sorted([*shared.RUN, "lock"])
    assert all((other / name).is_symlink() for name in shared.RUN)
    assert shared.origin(other) == store / NAME
    assert shared.origin(run) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda place: (place / "final/model.safetensors").write_bytes(b"x"),
        lambda place: (place / "tokens/step-000000.parquet").unlink(),
        lambda place: (place / "metrics.jsonl").write_text("metrics.jsonk"),
        lambda place: (place / "done.json").unlink(),
        lambda place: (place / "final/another.safetensors").write_bytes(b"x"),
        lambda place: (place / "published.json").unlink(),
        lambda place: (place / "published.json").write_text("{"),
        lambda place: (place / "published.json").write_text("[]"),
        lambda place: (place / "published.json").write_text('{"schema": 2, "digests": {}}'),
    ],
)
def test_whatever_is_not_as_it_was_published_is_passed_over_named_and_left_alone(
    run, store, tmp_path, change, capsys
):
    publish(run, store)
    other = tmp_path / "yours/store" / NAME
    other.mkdir(parents=True)
    shared.take(other, store, NAME)
    change(store / NAME)
    left = tree(store)
    assert shared.take(other, store, NAME) is None
    assert f"warning: {store / NAME} is not as it was published" in capsys.readouterr().out
    assert list(other.iterdir()) == []
    publish(run, store)
    assert tree(store) == left


def test_links_to_a_publication_that_is_gone_are_removed_with_a_word(run, store, tmp_path, capsys):
    publish(run, store)
    other = tmp_path / "yours/store" / NAME
    other.mkdir(parents=True)
    shared.take(other, store, NAME)
    shutil.rmtree(store / NAME)
    assert shared.take(other, store, NAME) is None
    assert f"the run that was taken from {store / NAME} is gone from there" in capsys.readouterr().out
    assert list(other.iterdir()) == []


def test_a_half_made_set_of_links_is_made_whole_or_removed(run, store, tmp_path):
    publish(run, store)
    other = tmp_path / "yours/store" / NAME
    other.mkdir(parents=True)
    for name in shared.RUN[:2]:
        (other / name).symlink_to(store / NAME / name)
    assert shared.take(other, store, NAME)
    assert {path.name for path in other.iterdir()} == set(shared.RUN)
    (other / "done.json").unlink()
    shutil.rmtree(store / NAME)
    assert shared.take(other, store, NAME) is None
    assert list(other.iterdir()) == []


def test_who_comes_second_leaves_the_first_publication_as_it_is(run, store):
    publish(run, store, record_id="first")
    before, moment = tree(store), (store / NAME).stat().st_mtime_ns
    publish(run, store, record_id="second")
    assert (tree(store), (store / NAME).stat().st_mtime_ns) == (before, moment)


def test_of_publishers_at_the_same_time_one_wins_and_no_one_complains(run, store, capsys, monkeypatch):
    copy = shared._copy

    def slow(source, target):
        if not (store / NAME).exists():
            monkeypatch.setattr(shared, "_copy", copy)
            publish(run, store, record_id="quick")  # from the beginning to the end, while the other one copies
        return copy(source, target)

    monkeypatch.setattr(shared, "_copy", slow)
    publish(run, store, record_id="slow")
    assert json.loads((store / NAME / "published.json").read_text())["record_id"] == "quick"
    assert os.listdir(store) == [NAME]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("umask", "file", "folder"), [(0o027, 0o640, 0o750), (0o002, 0o664, 0o775)])
def test_a_publication_has_the_permissions_that_the_umask_leaves(run, store, umask, file, folder):
    for path in run.rglob("*"):
        path.chmod(0o700)
    before = os.umask(umask)
    try:
        publish(run, store)
    finally:
        os.umask(before)
    for path in [store / NAME, *(store / NAME).rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (folder if path.is_dir() else file), path


PUBLISH = """
import sys
from pathlib import Path
from entropy_mechanism.stages import shared
run, store, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
print(shared.find(store, name))
shared.publish(store, name, {part: run / part for part in shared.RUN}, {})
"""


def as_anybody(run, store):
    command = [*AS_ANYBODY, sys.executable, "-c", PUBLISH, run, store, NAME]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_store_that_may_not_be_written_costs_one_line(run, store):
    store.chmod(0o555)
    try:
        found, warning = as_anybody(run, store)
    finally:
        store.chmod(0o755)
    assert found == "None"
    assert warning.startswith(f"warning: not published at {store / NAME}: [Errno 13] Permission denied")
    assert os.listdir(store) == []


def test_a_publication_can_be_taken_from_a_store_that_may_only_be_read(run, store):
    publish(run, store)
    for path in [store, *store.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert as_anybody(run, store) == [str(store / NAME)]
    finally:
        for path in [store, *store.rglob("*")]:
            path.chmod(0o755)


def test_a_publication_that_may_not_be_read_is_passed_over_with_what_to_do(run, store):
    publish(run, store)
    (store / NAME / "done.json").chmod(0o000)
    (line, found) = as_anybody(run, store)
    assert found == "None"
    assert line.startswith(f"warning: {store / NAME} is not used, since it cannot be read ([Errno 13]")
    assert "chmod -R g+rX" in line


def test_a_store_that_is_not_there_costs_one_line_and_is_not_made(run, tmp_path, capsys):
    publish(run, tmp_path / "mistyped")
    assert capsys.readouterr().out.count("\n") == 1
    assert not (tmp_path / "mistyped").exists()


def test_a_full_store_costs_one_line_and_is_left_as_it_was(run, tmp_path, capsys):
    with small_disk(tmp_path / "small", "64k") as disk:
        (run / "final/model.safetensors").write_bytes(bytes(100_000))
        publish(run, disk.folder)
        text = capsys.readouterr().out
        assert text.count("\n") == 1
        assert "No space left on device" in text
        assert os.listdir(disk.folder) == []
        assert shared.find(disk.folder, NAME) is None


def test_what_a_killed_publisher_left_is_never_taken_and_goes_after_a_day(run, store):
    left = store / f".{NAME}-0011aabb"
    shutil.copytree(run, left)
    young = store / f".{NAME}-0011aacc"
    young.mkdir()
    assert shared.find(store, NAME) is None
    os.utime(left, (time.time() - 90_000,) * 2)
    publish(run, store)
    assert sorted(os.listdir(store)) == [young.name, NAME]


def test_a_file_system_without_links_leaves_an_own_attempt_alone(run, store, tmp_path, capsys, monkeypatch):
    publish(run, store)
    other = make_run(tmp_path / "yours/store" / NAME)
    before = tree(other)

    def refuse(*arguments):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    assert shared.take(other, store, NAME) is None
    assert "cannot hold links (Operation not permitted)" in capsys.readouterr().out
    assert tree(other) == before
