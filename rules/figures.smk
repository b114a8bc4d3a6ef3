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
    params:
        code=code("figures"),
    log:
        PATHS.log("figure", "{figure}"),
    shell:
        "{CLI} figure --name {wildcards.figure} --frames {input} --outputs {output} {COMMON} > {log} 2>&1"


rule table:
    input:
        lambda wildcards: frames_of(wildcards.table),
    output:
        [PATHS.table(suffix) for suffix in ("csv", "md", "json")],
    params:
        code=code("figures"),
    log:
        PATHS.log("table", "{table}"),
    shell:
        "{CLI} table --name {wildcards.table} --frames {input} --outputs {output} {COMMON} > {log} 2>&1"


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
