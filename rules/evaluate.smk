BENCHMARKS = EXPERIMENT.evaluation.benchmarks


def policy_manifest(wildcards):
    """The manifest of a base model, or of a run's final policy."""
    policy = PLAN.policies[wildcards.policy]
    return PATHS.run_manifest(policy.name) if policy.run else PATHS.model(policy.model)


def problems_of(wildcards):
    """The problems of a benchmark."""
    return PATHS.data(BENCHMARKS[wildcards.benchmark].data)


def by_benchmark(paths):
    """`benchmark=file` for files in the order of the benchmarks."""
    return [f"{name}={path}" for name, path in zip(BENCHMARKS, paths, strict=True)]


rule evaluation:
    input:
        [PATHS.scores(policy) for policy in PLAN.policies],


rule sample:
    input:
        policy=policy_manifest,
        problems=[PATHS.data(benchmark.data) for benchmark in BENCHMARKS.values()],
    output:
        [PATHS.samples(benchmark=name) for name in BENCHMARKS],
    params:
        settings=settings(EXPERIMENT.evaluation),
        problems=lambda wildcards, input: by_benchmark(input.problems),
        outputs=lambda wildcards, output: by_benchmark(output),
    log:
        PATHS.log("sample", "{policy}"),
    shell:
        "{CLI} sample --experiment {EXPERIMENT_FILE} --policy {input.policy} --problems {params.problems}"
        " --outputs {params.outputs} --store {PATHS.store} --key {wildcards.policy} {COMMON} > {log} 2>&1"


rule grade:
    input:
        samples=PATHS.samples(),
        problems=problems_of,
    output:
        PATHS.grades(),
    params:
        code=code("rewards"),
    log:
        PATHS.log("grade", "{policy}", "{benchmark}"),
    shell:
        "{CLI} grade --samples {input.samples} --problems {input.problems}"
        " --key {wildcards.policy}/{wildcards.benchmark} --output {output} {COMMON} > {log} 2>&1"


rule score:
    input:
        [PATHS.grades(benchmark=name) for name in BENCHMARKS],
    output:
        PATHS.scores(),
    params:
        grades=lambda wildcards, input: by_benchmark(input),
        settings=settings(EXPERIMENT.analysis),
        code=code("evaluation"),
    log:
        PATHS.log("score", "{policy}"),
    shell:
        "{CLI} score --experiment {EXPERIMENT_FILE} --policy {wildcards.policy} --grades {params.grades}"
        " --output {output} {COMMON} > {log} 2>&1"
