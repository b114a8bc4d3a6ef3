rule training:
    input:
        [PATHS.run_config(name) for name in PLAN.runs],
        [PATHS.run_metrics(name) for name in PLAN.runs],
        [PATHS.run_manifest(name) for name in PLAN.runs],


localrules:
    resolve,


rule resolve:
    output:
        PATHS.run_config(),
    log:
        PATHS.log("resolve", "{run}"),
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
        validation=PATHS.data(EXPERIMENT.validation),
    output:
        metrics=PATHS.run_metrics(),
        manifest=PATHS.run_manifest(),
    log:
        PATHS.log("train", "{run}"),
    conda:
        POLICY_ENVIRONMENT
    params:
        store=PATHS.store,
        launcher=lambda wildcards: launcher(PLAN.run_config(wildcards.run).compute),
        place=lambda wildcards: PLAN.run_config(wildcards.run).compute.summary,
    message:
        "Training {wildcards.run}: {params.place}"
    shell:
        "{params.launcher}python -m entropy_mechanism train"
        " --config {input.config:q} --model {input.model:q} --train-set {input.train_set:q}"
        " --validation {input.validation:q} --store {params.store:q} --metrics {output.metrics:q}"
        " --output {output.manifest:q} 2>&1 | tee {log:q}"
