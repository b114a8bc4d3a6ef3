# Helpers of the rules; everything with logic is in the package.
import json
import hashlib
import re
import shlex
import subprocess

from entropy_mechanism.tracking import INVOCATION_VARIABLE

# The interpreter that runs Snakemake also runs the stages, whether or not its environment is activated.
CLI = f"{shlex.quote(sys.executable)} -m entropy_mechanism"
COMMON = f"--results {shlex.quote(SITE.results)}"
TRACKING = f" --tracking-uri {shlex.quote(SITE.tracking_uri)}" if SITE.tracking_uri else ""

# One run of the workflow is one parent run in MLflow; jobs learn its name from the environment.
os.environ.setdefault(INVOCATION_VARIABLE, uuid.uuid4().hex)


wildcard_constraints:
    data="|".join(map(re.escape, EXPERIMENT.data)),
    model="|".join(map(re.escape, EXPERIMENT.models)),
    run="|".join(map(re.escape, PLAN.runs)),
    policy="|".join(map(re.escape, PLAN.policies)),
    benchmark="|".join(map(re.escape, EXPERIMENT.evaluation.benchmarks)),
    figure="|".join(EXPERIMENT.figures) or "none",
    table="|".join(EXPERIMENT.tables) or "none",


def track(command, options, wait=True):
    """Run `entropy-mechanism track-…` for this invocation; a failure never stops the workflow."""
    line = f"{CLI} track-{command} --invocation {os.environ[INVOCATION_VARIABLE]} {options} {COMMON}{TRACKING}"
    process = subprocess.Popen(shlex.split(line), start_new_session=True, stdin=subprocess.DEVNULL)
    if wait:
        process.wait()


def settings(value):
    """Settings as one line of text: a rule parameter whose change re-runs the rule's jobs."""
    return value.model_dump_json()


def code(*folders):
    """Digest of the package's modules in `folders`: cheap stages re-run when their code changes."""
    package = Path(workflow.basedir) / "src" / "entropy_mechanism"
    modules = (path for folder in folders for path in sorted((package / folder).rglob("*.*")) if path.suffix != ".pyc")
    return hashlib.sha256(b"".join(path.read_bytes() for path in modules)).hexdigest()[:16]


def frames_of(item):
    """Analysis files that a figure or table is drawn from: those of the runs it shows."""
    runs = [run.name for run in PLAN.shown(item)]
    kinds = registry.entry(item).inputs
    analyses = [PATHS.analysis(kind, run) for kind in kinds if kind != "scores" for run in runs]
    scores = [PATHS.scores(policy.name) for policy in PLAN.shown_policies(item)] if "scores" in kinds else []
    return analyses + scores
