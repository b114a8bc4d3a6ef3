# Every data set that the experiment defines, also those that no run uses.
rule data:
    input:
        [PATHS.data(name) for name in EXPERIMENT.data],
        [PATHS.data_statistics(name) for name in EXPERIMENT.data],
        [PATHS.overlap(suffix, name) for suffix in ("parquet", "csv") for name in PLAN.trained_sets],
    message:
        "All data sets are there"


# Downloading needs the network, which the nodes of a cluster often lack.
rule prepare:
    input:
        parts=parts_of,
        file=lambda wildcards: getattr(EXPERIMENT.data[wildcards.data], "path", []),
    output:
        problems=PATHS.data(),
        statistics=PATHS.data_statistics(),
    log:
        PATHS.log("prepare", "{data}"),
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        settings=lambda wildcards: settings(EXPERIMENT.data[wildcards.data]),
    message:
        "Preparing data set {wildcards.data}"
    shell:
        "python -m entropy_mechanism prepare"
        " --experiment {params.experiment:q} --data {wildcards.data} --parts {input.parts:q} --output {output.problems:q}"
        " --statistics {output.statistics:q} > {log:q} 2>&1"


rule decontaminate:
    input:
        train_set=PATHS.data(),
        tested=[PATHS.data(name) for name in PLAN.tested_sets],
    output:
        problems=PATHS.overlap("parquet"),
        table=PATHS.overlap("csv"),
    log:
        PATHS.log("decontaminate", "{data}"),
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        settings=settings(EXPERIMENT.decontamination),
        tested=lambda wildcards, input: [f"{name}={path}" for name, path in zip(PLAN.tested_sets, input.tested)],
        code=code("data/decontaminate.py", "data/normalise.py", "data/problems.py", "stages/decontaminate.py"),
    message:
        "Looking for test problems in {wildcards.data}"
    shell:
        "python -m entropy_mechanism decontaminate"
        " --experiment {params.experiment:q} --train-set {input.train_set:q} --tested {params.tested:q}"
        " --key {wildcards.data} --output {output.problems:q} --table {output.table:q} > {log:q} 2>&1"
