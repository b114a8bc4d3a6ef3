"""The workflow's own process is idle while its jobs work."""

import subprocess
import sys

SNAKEFILE = """
import atexit
from snakemake.scheduling.job_scheduler import JobScheduler

include: "{rules}/scheduler.smk"

looks, select = [], JobScheduler.job_selector

def counted(scheduler, jobs):
    looks.append(len(jobs))
    return select(scheduler, jobs)

JobScheduler.job_selector = counted
atexit.register(lambda: print("looked", len(looks), "times", flush=True))

rule all:
    input: [f"{{i}}.done" for i in range(46)]

rule short:
    output: "{{i}}.done"
    shell: "[ {{wildcards.i}} -lt 40 ] || sleep 1; touch {{output}}"
"""


def test_finished_jobs_do_not_add_looks_for_new_ones(workspace, tmp_path):
    """Forty short jobs and six of a second: a look after each and one a second, not one a second for each."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(rules=workspace.root / "rules"))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--scheduler", "greedy"],
        cwd=tmp_path,
        env=workspace.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    looks = int(done.stdout.split("looked ")[1].split()[0])
    assert 46 <= looks < 80
