rule data:
    input:
        [PATHS.data(name) for name in PLAN.data_sets],
        [PATHS.data_statistics(name) for name in PLAN.data_sets],


rule prepare:
    output:
        problems=PATHS.data(),
        statistics=PATHS.data_statistics(),
    log:
        PATHS.log("prepare", "{data}"),
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        settings=lambda wildcards: settings(EXPERIMENT.data[wildcards.data]),
    message:
        "Generating data set {wildcards.data}"
    shell:
        "python -m entropy_mechanism prepare"
        " --experiment {params.experiment:q} --data {wildcards.data} --output {output.problems:q}"
        " --statistics {output.statistics:q} > {log:q} 2>&1"
