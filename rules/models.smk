rule models:
    input:
        [PATHS.model(name) for name in PLAN.models],


rule make_model:
    output:
        PATHS.model(),
    log:
        PATHS.log("make_model", "{model}"),
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        settings=lambda wildcards: settings(EXPERIMENT.models[wildcards.model]),
    message:
        "Warming up base model {wildcards.model}"
    shell:
        "python -m entropy_mechanism make-model"
        " --experiment {params.experiment:q} --model {wildcards.model} --output {output:q}"
        " 2>&1 | tee {log:q}"
