# Snakemake 9.27 looks for jobs to start again a second after it did (`--max-jobs-per-timespan`, 100/1s). Each look sets
# a timer of its own, so that every job that ends adds one more look per second for ever: after 150 jobs, with some
# hundred waiting, the main process takes a third of a core from trainings, or of a login node. One timer is enough.
import threading

from snakemake.scheduling.job_scheduler import JobScheduler


def look_again_once(scheduler, delay):
    """Let the scheduler look for jobs to start in `delay` seconds, unless it is going to anyway."""
    timer = getattr(scheduler, "_next_look", None)
    if timer is None or not timer.is_alive() or timer is threading.current_thread():
        scheduler._next_look = threading.Timer(delay, scheduler._open_jobs.release)
        scheduler._next_look.daemon = True
        scheduler._next_look.start()


JobScheduler._schedule_reevalutation = look_again_once
