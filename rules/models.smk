rule models:
    input:
        [PATHS.model(name) for name in PLAN.models],
    message:
        "All base models are there"


# Downloading needs the network, which the nodes of a cluster often lack.
rule fetch_model:
    output:
        PATHS.model(),
    log:
        PATHS.log("fetch_model", "{model}"),
    wildcard_constraints:
        model=any_of(name for name, model in EXPERIMENT.models.items() if model.kind == "hub"),
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        settings=lambda wildcards: settings(EXPERIMENT.models[wildcards.model]),
    message:
        "Fetching base model {wildcards.model}"
    shell:
        "python -m entropy_mechanism make-model"
        " --experiment {params.experiment:q} --model {wildcards.model} --output {output:q}"
        " 2>&1 | tee {log:q}"


rule make_model:
    output:
        PATHS.model(),
    log:
        PATHS.log("make_model", "{model}"),
    wildcard_constraints:
        model=any_of(name for name, model in EXPERIMENT.models.items() if model.kind != "hub"),
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
