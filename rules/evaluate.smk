rule evaluation:
    input:
        [PATHS.samples(policy, name) for policy in PLAN.policies for name in PLAN.benchmarks(policy)],
        [PATHS.grades(policy, name) for policy in PLAN.policies for name in PLAN.benchmarks(policy)],
        [PATHS.scores(policy) for policy in PLAN.policies],
        [PATHS.comparison(policy) for policy in PLAN.policies if PLAN.references(policy)],
    message:
        "All policies are evaluated"


# Outputs of a rule are fixed, so there is one for each set of benchmarks: sample, sample_2, …
for number, (names, policies) in enumerate(PLAN.benchmark_sets.items(), start=1):

    rule:
        name:
            "sample" if number == 1 else f"sample_{number}"
        input:
            policy=policy_manifest,
            problems=[PATHS.data(BENCHMARKS[name].data) for name in names],
        output:
            [PATHS.samples(benchmark=name) for name in names],
        log:
            PATHS.log("sample", "{policy}"),
        wildcard_constraints:
            policy=any_of(policies),
        conda:
            POLICY_ENVIRONMENT
        threads: lambda wildcards: sampling_needs(wildcards).cores
        resources:
            cpus_per_task=lambda wildcards: sampling_needs(wildcards).cores,
            gres=lambda wildcards: sampling_needs(wildcards).gres,
            mem_mb=lambda wildcards: sampling_needs(wildcards).mem_mb,
            runtime=lambda wildcards: sampling_needs(wildcards).minutes,
            tasks_per_gpu=0,
            gpu_job=lambda wildcards: 1 if sampling_needs(wildcards).gres else 0,
        params:
            experiment=EXPERIMENT_FILE,
            store=PATHS.store,
            settings=settings(EXPERIMENT.evaluation, "benchmarks", "grader", "compare_with"),
            benchmarks=[settings(BENCHMARKS[name]) for name in names],
            dtype=EXPERIMENT.training.dtype,
            prompts=[EXPERIMENT.prompt_of(name) for name in names],
            model=lambda wildcards: PLAN.policies[wildcards.policy].model,
            engine=lambda wildcards: EXPERIMENT.compute_of(PLAN.policies[wildcards.policy].model).engine,
            problems=lambda wildcards, input: by_benchmark(wildcards, input.problems),
            outputs=lambda wildcards, output: by_benchmark(wildcards, output),
        message:
            "Answering the benchmarks with {wildcards.policy}"
        shell:
            "python -m entropy_mechanism sample"
            " --experiment {params.experiment:q} --policy {input.policy:q} --model {params.model:q}"
            " --problems {params.problems:q} --outputs {params.outputs:q} --store {params.store:q}"
            " --key {wildcards.policy} > {log:q} 2>&1"


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
        grader=EXPERIMENT.evaluation.grader,
        code=code("data/problems.py", "rewards", "stages/grade.py"),
    message:
        "Grading {wildcards.policy} on {wildcards.benchmark}"
    shell:
        "python -m entropy_mechanism grade"
        " --samples {input.samples:q} --problems {input.problems:q} --grader {params.grader}"
        " --key {wildcards.policy}/{wildcards.benchmark} --output {output:q} > {log:q} 2>&1"


rule score:
    input:
        grades=grades_of,
        overlaps=lambda wildcards: [PATHS.overlap("parquet", name) for name in PLAN.train_sets(wildcards.policy)],
    output:
        PATHS.scores(),
    log:
        PATHS.log("score", "{policy}"),
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        benchmarks=settings(EXPERIMENT.evaluation),
        grades=lambda wildcards, input: by_benchmark(wildcards, input.grades),
        settings=settings(EXPERIMENT.analysis),
        code=code("evaluation", "statistics.py", "stages/score.py"),
    message:
        "Scoring {wildcards.policy}"
    shell:
        "python -m entropy_mechanism score"
        " --experiment {params.experiment:q} --policy {wildcards.policy} --grades {params.grades:q}"
        " --overlaps {input.overlaps:q} --output {output:q} > {log:q} 2>&1"


rule compare:
    input:
        grades=grades_of,
        references=lambda wildcards: list(reference_grades(wildcards).values()),
    output:
        PATHS.comparison(),
    log:
        PATHS.log("compare", "{policy}"),
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        benchmarks=settings(EXPERIMENT.evaluation),
        grades=lambda wildcards, input: by_benchmark(wildcards, input.grades),
        references=lambda wildcards: [f"{name}={path}" for name, path in reference_grades(wildcards).items()],
        settings=settings(EXPERIMENT.analysis),
        code=code("evaluation", "statistics.py", "stages/compare.py"),
    message:
        "Comparing {wildcards.policy} with others"
    shell:
        "python -m entropy_mechanism compare"
        " --experiment {params.experiment:q} --policy {wildcards.policy} --grades {params.grades:q}"
        " --references {params.references:q} --output {output:q} > {log:q} 2>&1"
