# What Snakemake 9.27 cannot be told by an option. tests/pipeline/test_scheduler.py and test_retries.py hold both
# against the pinned version.
import json
import os
import threading
from pathlib import Path

from snakemake.jobs import Job
from snakemake.scheduling.job_scheduler import JobScheduler

from entropy_mechanism.tracking import INVOCATION_VARIABLE


def look_again_once(scheduler, delay):
    """Let the scheduler look for jobs to start in `delay` seconds, unless it is going to anyway."""
    timer = getattr(scheduler, "_next_look", None)
    if timer is None or not timer.is_alive() or timer is threading.current_thread():
        scheduler._next_look = threading.Timer(delay, scheduler._open_jobs.release)
        scheduler._next_look.daemon = True
        scheduler._next_look.start()


# Each look for jobs to start sets a timer for another one a second later (`--max-jobs-per-timespan`, 100/1s), so that
# every job that ends adds one more look a second for ever: after 150 jobs, with some hundred waiting, the main process
# takes a third of a core from trainings, or of a login node. One timer is enough.
JobScheduler._schedule_reevalutation = look_again_once


def gave_up(job):
    """Whether a training of this invocation has ended with what would come again (stages/train.py)."""
    if job.rule.name != "train":
        return False
    try:
        marker = json.loads(Path(PATHS.run_gave_up(job.wildcards.run)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return marker.get("invocation") == os.environ[INVOCATION_VARIABLE]


# A job that has failed is submitted again as often as its `restart_times` say, which are those of its rule. Here one
# job can have fewer.
if workflow.is_main_process:
    Job.restart_times = property(lambda job: 0 if gave_up(job) else job.rule.restart_times)
