# Many jobs of one light stage of the project, each with a record of its own; for test_many_jobs.py.
import sys

RUNS = config["runs"].split(",")


rule all:
    input:
        expand("results/many/runs/{run}/run.yaml", run=RUNS),


rule resolve:
    output:
        "results/many/runs/{run}/run.yaml",
    log:
        "results/many/logs/resolve/{run}.log",
    params:
        python=sys.executable,
    shell:
        "PYTHONPATH=src {params.python} -m entropy_mechanism resolve --experiment many.yaml --run {wildcards.run}"
        " --output {output} --results results > {log} 2>&1"
