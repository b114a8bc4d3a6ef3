rule figures:
    input:
        [PATHS.figure(suffix, name) for name in EXPERIMENT.figures for suffix in FIGURE_FILES],
    message:
        "All figures are drawn"


rule tables:
    input:
        [PATHS.table(suffix, name) for name in EXPERIMENT.tables for suffix in TABLE_FILES],
    message:
        "All tables are written"


rule figure:
    input:
        lambda wildcards: frames_of(wildcards.figure),
    output:
        drawn(PATHS.figure, FIGURE_FILES, "svg", "Figures"),
    log:
        PATHS.log("figure", "{figure}"),
    conda:
        "../envs/cpu.yaml"
    params:
        own=lambda wildcards: EXPERIMENT.figures[wildcards.figure].options,
        code=code("analysis", "figures", "statistics.py", "stages/figure.py"),
    message:
        "Drawing {wildcards.figure}"
    shell:
        "python -m entropy_mechanism figure"
        " --name {wildcards.figure} --frames {input:q} --outputs {output:q} {params.own:q} > {log:q} 2>&1"


rule table:
    input:
        lambda wildcards: frames_of(wildcards.table),
    output:
        drawn(PATHS.table, TABLE_FILES, "csv", "Tables"),
    log:
        PATHS.log("table", "{table}"),
    conda:
        "../envs/cpu.yaml"
    params:
        code=code("analysis", "figures", "statistics.py", "stages/figure.py"),
    message:
        "Writing {wildcards.table}"
    shell:
        "python -m entropy_mechanism table"
        " --name {wildcards.table} --frames {input:q} --outputs {output:q} > {log:q} 2>&1"


# One target for each: `snakemake fig11`.
for name in EXPERIMENT.figures:

    rule:
        name:
            name
        input:
            [PATHS.figure(suffix, name) for suffix in FIGURE_FILES],
        message:
            f"{name} is drawn"


for name in EXPERIMENT.tables:

    rule:
        name:
            name
        input:
            [PATHS.table(suffix, name) for suffix in TABLE_FILES],
        message:
            f"{name} is written"
