rule data:
    input:
        [PATHS.data(name) for name in PLAN.data_sets],


rule prepare:
    output:
        problems=PATHS.data(),
        statistics=PATHS.data_statistics(),
    params:
        settings=lambda wildcards: settings(EXPERIMENT.data[wildcards.data]),
    log:
        PATHS.log("prepare", "{data}"),
    shell:
        "{CLI} prepare --experiment {EXPERIMENT_FILE} --data {wildcards.data} --output {output.problems}"
        " --statistics {output.statistics} {COMMON} > {log} 2>&1"
