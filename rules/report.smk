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
        title=EXPERIMENT.title,
        tracking=TRACKING,
        code=code("report", "figures", "stages/report.py"),
    message:
        "Writing the report"
    shell:
        "python -m entropy_mechanism report"
        " --experiment {params.experiment:q} --items {input.shown:q} --frames {input.frames:q} {input.scores:q}"
        " --output {output:q} {params.tracking} 2>&1 | tee {log:q}"
