"""Jobs in an image: apptainer is asked for it, and inside its own interpreter runs the checkout's package."""

import os
import shlex
import sys

import pytest

RUN = "results/smoke/runs/nano--train--grpo--s1/run.yaml"


@pytest.fixture
def apptainer(tmp_path, monkeypatch):
    """A stand-in that notes its arguments and gives the job an environment where only `python` of the image is."""
    inside, calls = tmp_path / "inside", tmp_path / "calls"
    inside.mkdir()
    (inside / "python").write_text(
        f'#!/bin/sh\necho "image python: $PYTHONPATH" >> {calls}\nexec {shlex.quote(sys.executable)} "$@"\n'
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apptainer").write_text(f"""#!/bin/sh
[ "$1" = --version ] && echo "apptainer version 1.3.0" && exit
echo "apptainer $*" >> {calls}
while [ "$1" != -c ]; do shift; done
PATH={inside}:/usr/bin:/bin exec bash -c "$2"
""")
    for file in (inside / "python", tmp_path / "bin/apptainer"):
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return calls


def test_a_job_runs_in_the_image_with_the_images_python_and_the_checkouts_package(workspace, apptainer, tmp_path):
    image = tmp_path / "jobs.sif"
    image.touch()
    (workspace.root / RUN).unlink(missing_ok=True)
    workspace.snakemake(
        RUN, "--software-deployment-method", "apptainer", "--apptainer-args=--nv",
        "--config", "experiment=smoke", f"container={image}",
    )  # fmt: skip
    call, python = apptainer.read_text().splitlines()[:2]
    assert f" exec --home {workspace.root}" in call.replace("'", "")
    assert " --nv " in call
    assert f" {image} bash -c" in call
    assert python == f"image python: {workspace.root}/src"
    assert (workspace.root / RUN).is_file()


def test_without_an_image_no_job_asks_for_apptainer(workspace, apptainer):
    (workspace.root / RUN).unlink(missing_ok=True)
    workspace.snakemake(RUN, "--config", "experiment=smoke")
    assert not apptainer.exists()
