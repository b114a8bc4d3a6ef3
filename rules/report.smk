rule report:
    input:
        shown=[PATHS.figure("json", name) for name in EXPERIMENT.figures]
        + [PATHS.table("json", name) for name in EXPERIMENT.tables],
        frames=[PATHS.analysis(kind, run) for run in PLAN.runs for kind in RUN_ANALYSES],
        scores=[PATHS.scores(policy) for policy in PLAN.policies],
    output:
        PATHS.report,
    log:
        PATHS.log("report"),
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        tracking=TRACKING,
        code=code("report", "figures"),
    message:
        "Writing the report"
    shell:
        "python -m entropy_mechanism report"
        " --experiment {params.experiment} --items {input.shown} --frames {input.frames} {input.scores}"
        " --output {output} {params.tracking} 2>&1 | tee {log}"
