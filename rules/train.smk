rule training:
    input:
        [PATHS.run_manifest(name) for name in PLAN.runs],


localrules:
    resolve,


rule resolve:
    output:
        PATHS.run_config(),
    params:
        settings=lambda wildcards: settings(PLAN.run_config(wildcards.run)),
    log:
        PATHS.log("resolve", "{run}"),
    shell:
        "{CLI} resolve --experiment {EXPERIMENT_FILE} --run {wildcards.run} --output {output} {COMMON} > {log} 2>&1"


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
    shell:
        "{CLI} train --config {input.config} --model {input.model} --train-set {input.train_set}"
        " --validation {input.validation} --store {PATHS.store} --metrics {output.metrics}"
        " --output {output.manifest} {COMMON} 2>&1 | tee {log}"
