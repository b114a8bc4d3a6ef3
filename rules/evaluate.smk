rule evaluation:
    input:
        [PATHS.samples(policy, name) for policy in PLAN.policies for name in BENCHMARKS],
        [PATHS.grades(policy, name) for policy in PLAN.policies for name in BENCHMARKS],
        [PATHS.scores(policy) for policy in PLAN.policies],


rule sample:
    input:
        policy=policy_manifest,
        problems=[PATHS.data(benchmark.data) for benchmark in BENCHMARKS.values()],
    output:
        [PATHS.samples(benchmark=name) for name in BENCHMARKS],
    log:
        PATHS.log("sample", "{policy}"),
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        store=PATHS.store,
        settings=settings(EXPERIMENT.evaluation),
        problems=lambda wildcards, input: by_benchmark(input.problems),
        outputs=lambda wildcards, output: by_benchmark(output),
    message:
        "Answering the benchmarks with {wildcards.policy}"
    shell:
        "python -m entropy_mechanism sample"
        " --experiment {params.experiment} --policy {input.policy} --problems {params.problems}"
        " --outputs {params.outputs} --store {params.store} --key {wildcards.policy} > {log} 2>&1"


rule grade:
    input:
        samples=PATHS.samples(),
        problems=problems_of,
    output:
        PATHS.grades(),
    log:
        PATHS.log("grade", "{policy}", "{benchmark}"),
    conda:
        "../envs/cpu.yaml"
    params:
        code=code("rewards"),
    message:
        "Grading {wildcards.policy} on {wildcards.benchmark}"
    shell:
        "python -m entropy_mechanism grade"
        " --samples {input.samples} --problems {input.problems}"
        " --key {wildcards.policy}/{wildcards.benchmark} --output {output} > {log} 2>&1"


rule score:
    input:
        [PATHS.grades(benchmark=name) for name in BENCHMARKS],
    output:
        PATHS.scores(),
    log:
        PATHS.log("score", "{policy}"),
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        grades=lambda wildcards, input: by_benchmark(input),
        settings=settings(EXPERIMENT.analysis),
        code=code("evaluation"),
    message:
        "Scoring {wildcards.policy}"
    shell:
        "python -m entropy_mechanism score"
        " --experiment {params.experiment} --policy {wildcards.policy} --grades {params.grades}"
        " --output {output} > {log} 2>&1"
