rule report:
    input:
        shown=[PATHS.figure("json", name) for name in EXPERIMENT.figures]
        + [PATHS.table("json", name) for name in EXPERIMENT.tables],
        frames=[PATHS.analysis(kind, run) for run in PLAN.runs for kind in RUN_ANALYSES],
        scores=[PATHS.scores(policy) for policy in PLAN.policies],
    output:
        PATHS.report,
    params:
        code=code("report", "figures"),
    log:
        PATHS.log("report"),
    shell:
        "{CLI} report --experiment {EXPERIMENT_FILE} --items {input.shown} --frames {input.frames} {input.scores}"
        " --output {output} {COMMON}{TRACKING} 2>&1 | tee {log}"
