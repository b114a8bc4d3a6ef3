rule analysis:
    input:
        [PATHS.analysis(kind, run) for run in PLAN.runs for kind in RUN_ANALYSES],


rule collect_curves:
    input:
        config=PATHS.run_config(),
        metrics=PATHS.run_metrics(),
        manifest=PATHS.run_manifest(),
    output:
        runs=PATHS.analysis("runs"),
        curves=PATHS.analysis("curves"),
    log:
        PATHS.log("collect_curves", "{run}"),
    shell:
        "{CLI} collect-curves --config {input.config} --metrics {input.metrics} --source {input.manifest}"
        " --runs {output.runs} --curves {output.curves} {COMMON} > {log} 2>&1"


rule fit_law:
    input:
        PATHS.analysis("curves"),
    output:
        PATHS.analysis("law"),
        PATHS.analysis("forecasts"),
        PATHS.analysis("forecast_points"),
    params:
        settings=settings(EXPERIMENT.analysis),
        code=code("analysis"),
    log:
        PATHS.log("fit_law", "{run}"),
    shell:
        "{CLI} fit-law --experiment {EXPERIMENT_FILE} --run {wildcards.run} --curves {input} --outputs {output}"
        " {COMMON} > {log} 2>&1"


rule entropy_dynamics:
    input:
        PATHS.analysis("curves"),
    output:
        PATHS.analysis("consumption"),
        PATHS.analysis("dynamics"),
        PATHS.analysis("dynamics_summary"),
    params:
        settings=settings(EXPERIMENT.analysis),
        code=code("analysis"),
    log:
        PATHS.log("entropy_dynamics", "{run}"),
    shell:
        "{CLI} entropy-dynamics --experiment {EXPERIMENT_FILE} --run {wildcards.run} --curves {input}"
        " --outputs {output} {COMMON} > {log} 2>&1"
