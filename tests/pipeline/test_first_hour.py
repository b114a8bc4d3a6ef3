"""What stands on the screen of a run: before the first job, on the way, and last of all."""

import os
import re
import signal
import subprocess
import time

import pytest
import yaml

SMOKE = ("--config", "experiment=smoke")
NOISE = ("Select jobs to execute", "Using shell", "Rules claiming more threads", "Conda environments: ignored")


@pytest.fixture(scope="module")
def finished(smoke, tmp_path_factory):
    """A copy of the finished smoke experiment, for tests that change its files."""
    return smoke.copy(tmp_path_factory.mktemp("screen") / "repository")


def test_a_run_says_how_much_there_is_to_do_how_far_it_is_and_what_it_made(workspace):
    first = workspace.snakemake("data", *SMOKE).stdout
    lines = [line for line in first.splitlines() if line]
    (begun,) = [number for number, line in enumerate(lines) if line.startswith("smoke: ")]
    (cores,) = re.findall(r"^Provided cores: (\d+)", first, re.MULTILINE)
    assert re.fullmatch(
        rf"smoke: 6 jobs on {cores} cores?, about \d+ s; a log of each is in results/smoke/logs/<rule>/\. "
        r"Ctrl-C stops, and the same command goes on from there\.",
        lines[begun],
    )
    assert begun < min(number for number, line in enumerate(lines) if re.match(r"Job \d", line))
    progress = re.findall(r"^(\d) of 7 steps \(\d+%\) done(?:, about (\d+) s left)?$", first, re.MULTILINE)
    assert [int(done) for done, _ in progress] == list(range(1, 8))
    assert [left != "" for _, left in progress] == 5 * [True] + 2 * [False]  # `data` itself takes no time
    assert not any(noise in first for noise in NOISE)
    (log,) = (workspace.root / ".snakemake/log").glob("*")
    assert all(noise in log.read_text() for noise in NOISE)
    assert lines[-1] == "Done: 12 files in results/smoke/data"
    assert "\nJob 0: All data sets are there\n" in first

    second = workspace.snakemake("data", *SMOKE).stdout
    assert "Nothing to be done" in second
    assert second.splitlines()[-1] == lines[-1]
    assert "Done: " not in workspace.snakemake("-n", "data", *SMOKE).stdout


def test_a_run_that_makes_the_report_ends_with_its_numbers_and_where_it_is(finished):
    page = finished.results / "smoke/report/index.html"
    page.unlink()
    lines = finished.snakemake(*SMOKE).stdout.splitlines()
    told = lines[
        lines.index("What came out of smoke, every stage once, in seconds, for continuous integration:") :
    ]
    assert told[1].startswith("GRPO on nano: entropy ")
    assert any(line.startswith("KL-Cov ") for line in told)
    assert told[-2].startswith("Claims of the paper: ")
    assert told[-1] == "Open results/smoke/report/index.html in a browser."
    assert page.is_file()
    assert finished.snakemake(*SMOKE).stdout.splitlines()[-len(told) :] == told  # and when there is nothing to do


def test_a_run_that_fails_ends_with_the_job_its_reason_its_log_and_what_to_do(finished):
    source = finished.results / "smoke/analysis/nano--train--grpo--s1/consumption.parquet"
    stat, content = source.stat(), source.read_bytes()
    source.write_bytes(b"no parquet")
    try:
        done = finished.snakemake("fig02", *SMOKE, check=False)
    finally:
        source.write_bytes(content)
        os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert done.returncode == 1
    assert "Error in rule figure:" in done.stdout
    assert not re.search("CalledProcessError|WorkflowError", done.stdout)
    failed, advice = done.stdout.splitlines()[-2:]
    assert re.fullmatch(
        r"Failed: figure fig02: .*[Pp]arquet.*; its log: results/smoke/logs/figure/fig02\.log", failed
    )
    assert advice == "0 of 2 jobs are done and kept. When the cause is gone, the same command goes on from there."
    assert finished.snakemake("fig02", *SMOKE).returncode == 0


def test_ctrl_c_ends_with_what_is_kept_and_what_to_type(finished):
    settings = yaml.safe_load((finished.root / "config/experiments/smoke.yaml").read_text())
    settings["training"]["steps"] = 3000
    (finished.root / "long.yaml").write_text(yaml.safe_dump(settings))
    target = "results/long/runs/nano--train--grpo--s1/manifest.json"
    output = finished.root / "output.txt"
    with output.open("w") as log:
        process = subprocess.Popen(
            finished.command(target, "--config", "experiment=long.yaml"),
            cwd=finished.root,
            env=finished.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        until = time.monotonic() + 120
        while not re.search(r"step \d+/3000: .* s left", output.read_text()):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < until
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(120) == 1
    text = output.read_text()
    assert re.fullmatch(
        r"Interrupted: \d of 5 jobs are done and kept, a training that had begun goes on from its last "
        r"checkpoint\. Type the same command again; logs are in results/long/logs/<rule>/\.",
        text.splitlines()[-1],
    )
    assert "Error" not in text
    assert "Exception" not in text
    assert list(finished.results.glob("store/*/checkpoints/step-*"))


def test_a_target_that_there_is_not_is_told_in_one_line_with_what_there_is(smoke):
    done = smoke.snakemake("fig09", *SMOKE, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == (
        "error: fig09 is no target of smoke, but of tiny-full and paper: "
        "snakemake fig09 --config experiment=tiny-full"
    )
    assert "Traceback" not in done.stdout
