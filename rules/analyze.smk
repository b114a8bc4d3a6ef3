rule analysis:
    input:
        [PATHS.analysis(kind, run) for run in PLAN.runs for kind in RUN_ANALYSES],
        studies(),
        [PATHS.fixed(name) for name in FIXED],
    message:
        "All analyses are there"


rule collect_curves:
    input:
        config=PATHS.run_config(),
        metrics=PATHS.run_metrics(),
        manifest=PATHS.run_manifest(),
        train_set=lambda wildcards: PATHS.data(PLAN.runs[wildcards.run].train_set),
    output:
        runs=PATHS.analysis("runs"),
        curves=PATHS.analysis("curves"),
    log:
        PATHS.log("collect_curves", "{run}"),
    conda:
        "../envs/cpu.yaml"
    params:
        code=code("data/problems.py", "models/manifest.py", "stages/collect_curves.py"),
    message:
        "Collecting the curves of {wildcards.run}"
    shell:
        "python -m entropy_mechanism collect-curves"
        " --config {input.config:q} --metrics {input.metrics:q} --source {input.manifest:q}"
        " --train-set {input.train_set:q} --runs {output.runs:q} --curves {output.curves:q} > {log:q} 2>&1"


rule fit_law:
    input:
        PATHS.analysis("curves"),
    output:
        PATHS.analysis("law"),
        PATHS.analysis("forecasts"),
        PATHS.analysis("forecast_points"),
        PATHS.analysis("forms"),
    log:
        PATHS.log("fit_law", "{run}"),
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        settings=settings(EXPERIMENT.analysis),
        code=code("analysis", "statistics.py", "stages/analyze.py"),
    message:
        "Fitting the law to {wildcards.run}"
    shell:
        "python -m entropy_mechanism fit-law"
        " --experiment {params.experiment:q} --run {wildcards.run} --curves {input:q} --outputs {output:q}"
        " > {log:q} 2>&1"


# Token records stand in the store, which no rule declares; manifest and metrics change whenever they do.
rule token_covariances:
    input:
        config=PATHS.run_config(),
        metrics=PATHS.run_metrics(),
        manifest=PATHS.run_manifest(),
    output:
        PATHS.analysis("token_covariances"),
        PATHS.analysis("covariance_levels"),
    log:
        PATHS.log("token_covariances", "{run}"),
    conda:
        "../envs/cpu.yaml"
    params:
        store=PATHS.store,
        code=code(
            "analysis/columns.py",
            "analysis/covariance_levels.py",
            "analysis/dynamics.py",
            "analysis/law.py",
            "analysis/token_covariances.py",
            "models/manifest.py",
            "rl/batch.py",
            "rl/covariance.py",
            "rl/objectives.py",
            "rl/token_records.py",
            "statistics.py",
            "stages/token_covariances.py",
        ),
    message:
        "Covariances of {wildcards.run} from its token records"
    shell:
        "python -m entropy_mechanism token-covariances"
        " --config {input.config:q} --metrics {input.metrics:q} --source {input.manifest:q}"
        " --store {params.store:q} --outputs {output:q} > {log:q} 2>&1"


rule entropy_dynamics:
    input:
        curves=PATHS.analysis("curves"),
        token_covariances=PATHS.analysis("token_covariances"),
        covariance_levels=PATHS.analysis("covariance_levels"),
    output:
        PATHS.analysis("consumption"),
        PATHS.analysis("dynamics"),
        PATHS.analysis("entropy_change"),
        PATHS.analysis("dynamics_summary"),
    log:
        PATHS.log("entropy_dynamics", "{run}"),
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        settings=settings(EXPERIMENT.analysis),
        code=code("analysis", "statistics.py", "stages/analyze.py"),
    message:
        "Entropy dynamics of {wildcards.run}"
    shell:
        "python -m entropy_mechanism entropy-dynamics"
        " --experiment {params.experiment:q} --run {wildcards.run} --curves {input.curves:q}"
        " --token-covariances {input.token_covariances:q} --covariance-levels {input.covariance_levels:q}"
        " --outputs {output:q} > {log:q} 2>&1"


# An analysis across the runs of one figure or table; of no others, so that a figure can be planned alone.
rule study:
    input:
        lambda wildcards: [
            PATHS.analysis(kind, run.name)
            for kind in STUDIES[wildcards.study]
            for run in PLAN.shown(wildcards.item)
        ],
    output:
        PATHS.across(),
    log:
        PATHS.log("study", "{item}", "{study}"),
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        settings=settings(EXPERIMENT.analysis),
        code=code("analysis", "statistics.py", "stages/studies.py"),
    message:
        "Study {wildcards.study} of the runs of {wildcards.item}"
    shell:
        "python -m entropy_mechanism study"
        " --experiment {params.experiment:q} --study {wildcards.study} --item {wildcards.item}"
        " --frames {input:q} --output {output:q} > {log:q} 2>&1"


rule published:
    output:
        [PATHS.fixed(name) for name in FIXED if name.startswith("published")],
    log:
        PATHS.log("published"),
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        settings=settings(EXPERIMENT.analysis),
        code=code(
            "analysis",
            "figures/published",
            "figures/published.py",
            "shapes.py",
            "statistics.py",
            "stages/published.py",
        ),
    message:
        "Fitting the curves that the paper shows"
    shell:
        "python -m entropy_mechanism published"
        " --experiment {params.experiment:q} --outputs {output:q} > {log:q} 2>&1"


rule tabular:
    output:
        PATHS.fixed("tabular"),
        PATHS.fixed("tabular_left_out"),
        PATHS.fixed("counterexamples"),
        PATHS.fixed("counterexample_paths"),
    log:
        PATHS.log("tabular"),
    conda:
        "../envs/cpu.yaml"
    params:
        code=code("analysis/tabular.py", "stages/tabular.py"),
    message:
        "Checking the entropy formulas on tabular softmax policies"
    shell:
        "python -m entropy_mechanism tabular --outputs {output:q} > {log:q} 2>&1"
