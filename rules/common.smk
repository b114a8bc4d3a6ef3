# Helpers of the rules; everything with logic is in the package.
import functools
import hashlib
import json
import re
import shlex
import subprocess
from datetime import datetime

from snakemake.exceptions import WorkflowError

from entropy_mechanism import resources as resources_of
from entropy_mechanism.paths import ARTIFACT_LIMIT_VARIABLE, FIXED, RESULTS_VARIABLE, SHARED_VARIABLE, STUDIES
from entropy_mechanism.tracking import INVOCATION_VARIABLE

# Jobs run this checkout's package, with the interpreter that runs Snakemake unless --software-deployment-method
# gives every rule an environment of its own.
PACKAGE = Path(os.path.abspath(HOME / "src"))
OWN_ENVIRONMENT = bool(workflow.deployment_settings.deployment_method)
# `time_limit MINUTES` gives the option that lets a Slurm job stop in time: with a tenth left, or five minutes.
shell.prefix(
    'time_limit() {{ [ -z "${{SLURM_JOB_ID:-}}" ] ||'
    ' echo "--deadline-seconds $(($1 * 60 - ($1 < 50 ? $1 * 6 : 300)))"; }}; '
    f"export PYTHONPATH={shlex.quote(str(PACKAGE))} {RESULTS_VARIABLE}={shlex.quote(SITE.results)}"
    f" {ARTIFACT_LIMIT_VARIABLE}={SITE.artifact_limit_mb} {SHARED_VARIABLE}={shlex.quote(SITE.shared_store or '')}; "
    + ("" if OWN_ENVIRONMENT else f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; ')
)
TRACKING = f"--tracking-uri {shlex.quote(SITE.tracking_uri)}" if SITE.tracking_uri else ""

# All jobs of `train` and `sample` have one environment, with vLLM when any model trains on a GPU.
ON_GPU = any(EXPERIMENT.compute_of(name).device == "cuda" for name in PLAN.models)
POLICY_ENVIRONMENT = f"../envs/{'gpu' if ON_GPU else 'cpu'}.yaml"

FIGURE_FILES = ("pdf", "png", "svg", "csv", "json")
TABLE_FILES = ("csv", "md", "json")
BENCHMARKS = EXPERIMENT.evaluation.benchmarks

# One run of the workflow is one parent run in MLflow; jobs learn its name from the environment.
os.environ.setdefault(
    INVOCATION_VARIABLE, f"{PATHS.experiment}-{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
)


def any_of(names):
    """A wildcard that stands for one of the names; of none of them, where there are none.

    Runs that differ by their seed alone stand there together: Snakemake searches this text again for every file of
    every job, and with thousands of names that took half of the planning.
    """
    seeds = {}
    for name in names:
        stem, seed = re.fullmatch(r"(.*?)(?:--s(\d+))?", name).groups()
        seeds.setdefault(stem, []).append(seed)
    alone = [re.escape(stem) for stem, found in seeds.items() if None in found]
    several = [
        f"{re.escape(stem)}--s(?:{'|'.join(filter(None, found))})" for stem, found in seeds.items() if any(found)
    ]
    return "|".join([*alone, *several]) or "none"


wildcard_constraints:
    data=any_of(EXPERIMENT.data),
    model=any_of(EXPERIMENT.models),
    run=any_of(PLAN.runs),
    policy=any_of(PLAN.policies),
    benchmark=any_of(EXPERIMENT.evaluation.benchmarks),
    figure=any_of(EXPERIMENT.figures),
    table=any_of(EXPERIMENT.tables),
    study=any_of(STUDIES),
    item=any_of([*EXPERIMENT.figures, *EXPERIMENT.tables]),


def track(command, options, wait=True):
    """Run `entropy-mechanism track …` for this invocation; a failure never stops the workflow."""
    line = (
        f"-m entropy_mechanism track {command} --invocation {os.environ[INVOCATION_VARIABLE]} {options} {TRACKING}"
    )
    process = subprocess.Popen(
        [sys.executable, *shlex.split(line), "--results", SITE.results],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(PACKAGE), ARTIFACT_LIMIT_VARIABLE: str(SITE.artifact_limit_mb)},
    )
    if wait:
        process.wait()


def settings(value, *without):
    """Settings as one line of text, some left out: a rule parameter whose change re-runs the rule's jobs."""
    return value.model_dump_json(exclude=set(without))


def code(*parts):
    """Digest of modules and folders of the package: cheap stages re-run when their code changes.

    The parts are the stage's module and what that imports of the science, which a test holds; settings, files and
    records of others are no part of it.
    """
    digest = hashlib.sha256()
    for part in parts:
        place = PACKAGE / "entropy_mechanism" / part
        modules = (
            [place] if place.is_file() else [path for path in sorted(place.rglob("*.*")) if path.suffix != ".pyc"]
        )
        if not modules:
            raise WorkflowError(f"rules name code that is not there: {place}")
        for path in modules:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def needs_of(name):
    """What the training of a run asks of a cluster."""
    run = PLAN.run_config(name)
    return resources_of.training(run, memory.known_shape(EXPERIMENT.models[run.model]), SITE.gpu_type)


def training_needs(wildcards):
    """What the training of a run asks of a cluster; asked several times for each job."""
    return needs_of(wildcards.run)


def sampling_needs(wildcards):
    """What answering the benchmarks asks of a cluster."""
    name = PLAN.policies[wildcards.policy].model
    return resources_of.sampling(
        EXPERIMENT.compute_of(name), memory.known_shape(EXPERIMENT.models[name]), SITE.gpu_type
    )


def frames_of(item):
    """Analysis files that a figure or table is drawn from: of each run it shows, across these runs, of none."""
    runs = [run.name for run in PLAN.shown(item)]
    kinds = registry.entry(item).inputs
    policies = [policy.name for policy in PLAN.shown_policies(item)]
    files = []
    for kind in kinds:
        if kind == "scores":
            files += [PATHS.scores(name) for name in policies]
        elif kind == "comparison":
            files += [PATHS.comparison(name) for name in policies if PLAN.references(name)]
        elif kind in STUDIES:
            files.append(PATHS.across(kind, item))
        elif kind in FIXED:
            files.append(PATHS.fixed(kind))
        else:
            files += [PATHS.analysis(kind, run) for run in runs]
    return files


def drawn(place, suffixes, shown, category):
    """Files of a figure or table; the one with suffix `shown` also stands in `snakemake --report`.

    Its title and caption there are those of its json file, which is the last of them.
    """

    def labels(wildcards):
        description = Path(place("json", wildcards[0])).read_text(encoding="utf-8")
        return {"name": wildcards[0], "title": json.loads(description)["title"]}

    caption = "../workflow/report/described.rst"
    files = {suffix: place(suffix) for suffix in suffixes}
    files[shown] = report(files[shown], caption=caption, category=category, labels=labels)
    return list(files.values())


def studies():
    """Every study that a figure or table of the experiment is drawn from."""
    items = [*EXPERIMENT.figures, *EXPERIMENT.tables]
    return [PATHS.across(kind, item) for item in items for kind in registry.entry(item).inputs if kind in STUDIES]


def parts_of(wildcards):
    """The data sets that a joined one consists of; none for any other."""
    parts = EXPERIMENT.parts_of(wildcards.data)
    return [] if parts == [wildcards.data] else [PATHS.data(name) for name in parts]


def policy_manifest(wildcards):
    """The manifest of a base model, or of a run's final policy."""
    policy = PLAN.policies[wildcards.policy]
    return PATHS.run_manifest(policy.name) if policy.run else PATHS.model(policy.model)


def problems_of(wildcards):
    """The problems of a benchmark."""
    return PATHS.data(BENCHMARKS[wildcards.benchmark].data)


def reference_grades(wildcards):
    """`policy/benchmark` -> grades of the policies that one is compared with."""
    policies = [policy.name for policy in PLAN.references(wildcards.policy)]
    names = PLAN.benchmarks(wildcards.policy)
    return {f"{policy}/{name}": PATHS.grades(policy, name) for policy in policies for name in names}


def grades_of(wildcards):
    """Grades of a policy on its benchmarks."""
    return [PATHS.grades(wildcards.policy, name) for name in PLAN.benchmarks(wildcards.policy)]


def by_benchmark(wildcards, paths):
    """`benchmark=file` for files in the order of a policy's benchmarks."""
    names = PLAN.benchmarks(wildcards.policy)
    return [f"{name}={path}" for name, path in zip(names, paths, strict=True)]
