rule models:
    input:
        [PATHS.model(name) for name in PLAN.models],


rule make_model:
    output:
        PATHS.model(),
    params:
        settings=lambda wildcards: settings(EXPERIMENT.models[wildcards.model]),
    log:
        PATHS.log("make_model", "{model}"),
    shell:
        "{CLI} make-model --experiment {EXPERIMENT_FILE} --model {wildcards.model} --output {output}"
        " {COMMON} 2>&1 | tee {log}"
