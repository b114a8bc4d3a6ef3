# The stage finds these files by the experiment, as inputs.py says: a command line of all of them would be too long.
rule report:
    input:
        shown=inputs.descriptions(PLAN, PATHS),
        pictures=[PATHS.figure(suffix, name) for name in EXPERIMENT.figures for suffix in FIGURE_FILES],
        tables=[PATHS.table(suffix, name) for name in EXPERIMENT.tables for suffix in TABLE_FILES],
        frames=inputs.frames(PLAN, PATHS),
        compared=COMPARED_FRAMES,
    output:
        report(
            PATHS.report,
            caption="../workflow/report/page.rst",
            category="Report",
            labels={"page": "Claims, verdicts, figures and tables"},
        ),
    log:
        PATHS.log("report"),
    conda:
        "../envs/cpu.yaml"
    params:
        experiment=EXPERIMENT_FILE,
        title=EXPERIMENT.title,
        tracking=TRACKING,
        compared=f"--compare-with {shlex.quote(str(COMPARED))}" if COMPARED else "",
        code=code("analysis", "figures", "report", "statistics.py", "stages/report.py"),
    message:
        "Writing the report"
    shell:
        "python -m entropy_mechanism report"
        " --experiment {params.experiment:q} --output {output:q} {params.compared} {params.tracking} > {log:q} 2>&1"
