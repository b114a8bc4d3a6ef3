"""What is recorded of the checkout that a stage ran from, in real repositories."""

import subprocess

import pytest

from entropy_mechanism.tracking import provenance


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder in a repository with one commit, taken for the package."""
    folder = tmp_path / "src/package"
    folder.mkdir(parents=True)
    (folder / "code.py").write_text("1\n")
    (tmp_path / "notes.md").write_text("first\n")
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(tmp_path))
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(provenance, "_PACKAGE", folder)
    return folder


def test_a_clean_checkout_is_its_revision(package):
    head = subprocess.run(["git", "-C", package, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert provenance.git_state() == {"revision": head.stdout.strip(), "dirty": False, "changes": None}


def test_equal_changes_have_equal_digits_and_others_others(package):
    states = [provenance.git_state()]
    for name, text in (
        ("code.py", "2\n"),
        ("code.py", "3\n"),
        ("new.py", "1\n"),
        ("new.py", "2\n"),
        ("../../notes.md", "second\n"),
    ):
        (package / name).write_text(text)
        states.append(provenance.git_state())
    assert [state["dirty"] for state in states] == [False, *[True] * 5]
    assert len({state["changes"] for state in states}) == 6
    assert len({state["revision"] for state in states}) == 1
    (package / "../../notes.md").write_text("first\n")
    assert provenance.git_state() == states[4]


def test_outside_git_nothing_is_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_state() == {"revision": None, "dirty": None, "changes": None}
