# What a person sees of a run: no lines that tell nothing, the time that is left, and last of all what came out, or what
# to do. Words and numbers are in the package (screen.py); tests/pipeline/test_first_hour.py holds what is used of Snakemake.
import atexit
import logging

from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake.logging import DefaultFormatter, logger
from snakemake_interface_logger_plugins.common import LogEvent

from entropy_mechanism import screen


class Screen:
    """One run on the screen. Listens to Snakemake's log, in which every job begins and ends."""

    clock = None
    last_words = None
    interrupted = False

    def listen(self, record):
        """Note what happens; keeps every record."""
        event = getattr(record, "event", None)
        if record.msg == "Building DAG of jobs...":  # the first moment at which the targets are known
            refuse_what_there_is_not()
        elif record.msg == NOTHING_TO_BE_DONE_MSG:
            self.end(screen.ending(PATHS, asked_for()))
        elif str(record.msg).startswith("Terminating processes on user request"):
            self.interrupted = True
        elif self.clock and event == LogEvent.JOB_INFO:
            self.clock.start(record.jobid)
        elif self.clock and event == LogEvent.JOB_FINISHED:
            self.clock.end(record.job_id)
        return True

    def shows(self, record):
        """Whether a record tells a person something; that jobs fail which were interrupted does not."""
        return not (screen.NOISE.match(str(record.msg)) or (self.interrupted and record.levelno >= logging.ERROR))

    def begin(self):
        """Say what is going to be done, before the first job."""
        jobs = [job for job in workflow.dag.needrun_jobs() if job.output]
        if workflow.local_exec:
            known = [
                (workflow.dag.jobid(job), job.rule.name, dict(job.wildcards.items()), job.threads) for job in jobs
            ]
            self.clock = screen.clock(PLAN, known, workflow.cores)
        cores = workflow.cores if workflow.local_exec else None
        logger.info(screen.beginning(PATHS, len(jobs), cores, self.clock and self.clock.left()))

    def progress(self, text):
        """Snakemake's line of progress, with the time that is left."""
        left = self.clock and self.clock.left()
        return f"{text}, about {screen.duration(left)} left" if left else text

    def stop(self):
        """Keep for the end why the run has stopped."""
        scheduler = workflow.scheduler
        failed = [part for job in scheduler.failed for part in (job if job.is_group() else [job])]
        told = [
            screen.Job(" ".join([part.rule.name, *part.wildcards]), tuple(map(Path, part.log))) for part in failed
        ]
        self.end(screen.stopping(PATHS, told, scheduler.finished_jobs, len(workflow.dag)))

    def end(self, words):
        """Say this last, after whatever else Snakemake has to say."""
        if self.last_words is None and not workflow.dryrun:
            atexit.register(lambda: print(f"\n{self.last_words}", file=sys.stderr, flush=True))
            self.last_words = words


def asked_for():
    """The files that the targets of this call stand for."""
    return [str(path) for job in workflow.dag.targetjobs for path in (job.output or job.input)]


def refuse_what_there_is_not():
    """Stop when targets, rules of `-R` and its like, or files of data sets are not there."""
    asked = workflow.dag_settings
    lists = (asked.forcerun, asked.until, asked.omit_from, asked.allowed_rules)
    forced = {name for named in lists for name in named or ()}
    names = {rule.name for rule in workflow.rules}
    known, presets = readiness.Makes(names, rules.all.input, makes), HOME / "config/experiments"
    found = readiness.unknown_targets(sorted(asked.targets), known, PLAN, PATHS, presets)
    found += readiness.unknown_rules(sorted(forced.difference(asked.targets)), known, PATHS, presets)
    found += [f"{EXPERIMENT_FILE}: {fault}" for fault in readiness.missing_files(PLAN, PATHS, known)]
    if found:
        sys.exit(f"error: {' | '.join(found)}")


def makes(path):
    """Whether a rule makes a file, named as Snakemake names it."""
    path = path if os.path.isabs(path) else os.path.relpath(path)
    return any(rule.is_producer(path) for rule in workflow.rules)


SCREEN = Screen()

# Where another workflow uses this one, what is on the screen is its own matter.
if workflow.is_main_process and workflow.modifier.is_main_snakefile():
    logger.addFilter(SCREEN.listen)
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(SCREEN.shows)
    plain = DefaultFormatter.format_progress
    DefaultFormatter.format_progress = lambda formatter, message: SCREEN.progress(plain(formatter, message))
