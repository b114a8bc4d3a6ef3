rule training:
    input:
        [PATHS.run_config(name) for name in PLAN.runs],
        [PATHS.run_metrics(name) for name in PLAN.runs],
        [PATHS.run_manifest(name) for name in PLAN.runs],
    message:
        "All runs are trained"


rule resolve:
    output:
        PATHS.run_config(),
    log:
        PATHS.log("resolve", "{run}"),
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        settings=lambda wildcards: settings(PLAN.run_config(wildcards.run)),
    message:
        "Resolving the settings of {wildcards.run}"
    shell:
        "python -m entropy_mechanism resolve"
        " --experiment {params.experiment:q} --run {wildcards.run} --output {output:q} > {log:q} 2>&1"


rule train:
    input:
        config=PATHS.run_config(),
        model=lambda wildcards: PATHS.model(PLAN.runs[wildcards.run].model),
        train_set=lambda wildcards: PATHS.data(PLAN.runs[wildcards.run].train_set),
        validation=lambda wildcards: PATHS.data(PLAN.validations[wildcards.run]),
    output:
        metrics=PATHS.run_metrics(),
        manifest=PATHS.run_manifest(),
    log:
        PATHS.log("train", "{run}"),
    conda:
        POLICY_ENVIRONMENT
    threads: lambda wildcards: training_needs(wildcards).cores
    resources:
        cpus_per_task=lambda wildcards: training_needs(wildcards).cores,
        nodes=lambda wildcards: training_needs(wildcards).nodes,
        gres=lambda wildcards: training_needs(wildcards).gres,
        mem_mb=lambda wildcards: training_needs(wildcards).mem_mb,
        runtime=lambda wildcards: training_needs(wildcards).minutes,
        # Slurm's plugin: start the command itself, not under an srun of its own, with a task on each node.
        mpi=lambda wildcards: "srun" if training_needs(wildcards).nodes > 1 else None,
        tasks=lambda wildcards: training_needs(wildcards).nodes,
        tasks_per_gpu=0,
        gpu_job=lambda wildcards: 1 if training_needs(wildcards).gres else 0,
    params:
        store=PATHS.store,
        launcher=lambda wildcards, resources: resources_of.launcher(
            resources.nodes, resources.cpus_per_task, resources.get("gres")
        ),
        place=lambda wildcards: PLAN.run_config(wildcards.run).compute.summary,
    message:
        "Training {wildcards.run}: {params.place}"
    shell:
        "{params.launcher}python -m entropy_mechanism train"
        " --config {input.config:q} --model {input.model:q} --train-set {input.train_set:q}"
        " --validation {input.validation:q} --store {params.store:q} --metrics {output.metrics:q}"
        " --output {output.manifest:q} $(time_limit {resources.runtime}) 2>&1 | tee {log:q}"
