rule figures:
    input:
        [PATHS.figure("png", name) for name in EXPERIMENT.figures],


rule tables:
    input:
        [PATHS.table("csv", name) for name in EXPERIMENT.tables],


rule figure:
    input:
        lambda wildcards: frames_of(wildcards.figure),
    output:
        [PATHS.figure(suffix) for suffix in ("pdf", "png", "csv", "json")],
    log:
        PATHS.log("figure", "{figure}"),
    conda:
        "../envs/cpu.yaml"
    params:
        code=code("figures"),
    message:
        "Drawing {wildcards.figure}"
    shell:
        "python -m entropy_mechanism figure"
        " --name {wildcards.figure} --frames {input} --outputs {output} > {log} 2>&1"


rule table:
    input:
        lambda wildcards: frames_of(wildcards.table),
    output:
        [PATHS.table(suffix) for suffix in ("csv", "md", "json")],
    log:
        PATHS.log("table", "{table}"),
    conda:
        "../envs/cpu.yaml"
    params:
        code=code("figures"),
    message:
        "Writing {wildcards.table}"
    shell:
        "python -m entropy_mechanism table"
        " --name {wildcards.table} --frames {input} --outputs {output} > {log} 2>&1"


# One target for each: `snakemake fig11`.
for name in EXPERIMENT.figures:

    rule:
        name:
            name
        input:
            PATHS.figure("png", name),


for name in EXPERIMENT.tables:

    rule:
        name:
            name
        input:
            PATHS.table("csv", name),
