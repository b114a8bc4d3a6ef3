"""What the help pages say beside the options: an example of every stage, and the exit statuses."""

import argparse
import textwrap

EXIT_STATUSES = """\
exit status:
  0   done, or taken from what was done before
  1   failed; the last line says why and what to do
  2   wrong usage; `entropy-mechanism STAGE --help` says which options there are
  75  a training stopped in time, with everything in a checkpoint; the same command goes on from there
  A second SIGTERM or Ctrl-C ends at once (130, 143); the same command goes on from the last checkpoint.

The workflow calls these stages itself: `snakemake -n` shows what it would do. Completion for a shell:
  entropy-mechanism completion bash > ~/.local/share/bash-completion/completions/entropy-mechanism"""

_EXPERIMENT = "--experiment config/experiments/smoke.yaml"
_RUN = "nano--train--grpo--s1"
_FILES = f"results/smoke/runs/{_RUN}"
_DATA = "results/smoke/data"
_CURVES = f"results/smoke/analysis/{_RUN}"
_ENDED = f"--config {_FILES}/run.yaml --metrics {_FILES}/metrics.parquet --source {_FILES}/manifest.json"
_TRAINING = (
    f"--config {_FILES}/run.yaml --model results/smoke/models/nano/manifest.json "
    f"--train-set {_DATA}/train.parquet --validation {_DATA}/validation.parquet"
)

EXAMPLES = {
    "prepare": f"{_EXPERIMENT} --data train --output train.parquet --statistics train.json",
    "decontaminate": f"{_EXPERIMENT} --train-set {_DATA}/train.parquet --tested easy={_DATA}/easy.parquet "
    "--key train --output overlap.parquet --table overlap.csv",
    "make-model": f"{_EXPERIMENT} --model nano --output nano/manifest.json",
    "resolve": f"{_EXPERIMENT} --run {_RUN} --output run.yaml",
    "train": f"{_TRAINING} --store results/store --metrics metrics.parquet --output policy.json",
    "train-rank": f"{_TRAINING} --fingerprint 0123456789abcdef --folder results/store/0123456789abcdef",
    "sample": f"{_EXPERIMENT} --policy {_FILES}/manifest.json --model nano "
    f"--problems easy={_DATA}/easy.parquet --outputs easy=samples.parquet --store results/store --key {_RUN}",
    "grade": f"--samples samples.parquet --problems {_DATA}/easy.parquet --key {_RUN}/easy "
    "--output grades.parquet",
    "score": f"{_EXPERIMENT} --policy {_RUN} --grades easy=grades.parquet "
    f"--overlaps {_DATA}/overlap/train.parquet --output scores.parquet",
    "compare": f"{_EXPERIMENT} --policy {_RUN} --grades easy=grades.parquet "
    "--references nano--base/easy=base.parquet --output comparison.parquet",
    "collect-curves": f"{_ENDED} --train-set {_DATA}/train.parquet --runs runs.parquet --curves curves.parquet",
    "fit-law": f"{_EXPERIMENT} --run {_RUN} --curves {_CURVES}/curves.parquet "
    "--outputs law.parquet forecasts.parquet forecast_points.parquet forms.parquet",
    "study": f"{_EXPERIMENT} --study common_law --item common_law --frames {_CURVES}/curves.parquet "
    "--output common_law.parquet",
    "published": f"{_EXPERIMENT} --outputs published_law.parquet published_forms.parquet",
    "token-covariances": f"{_ENDED} --store results/store "
    "--outputs token_covariances.parquet covariance_levels.parquet",
    "entropy-dynamics": f"{_EXPERIMENT} --run {_RUN} --curves {_CURVES}/curves.parquet "
    f"--token-covariances {_CURVES}/token_covariances.parquet "
    f"--covariance-levels {_CURVES}/covariance_levels.parquet "
    "--outputs consumption.parquet dynamics.parquet entropy_change.parquet dynamics_summary.parquet",
    "tabular": "--outputs tabular.parquet tabular_left_out.parquet counterexamples.parquet "
    "counterexample_paths.parquet",
    "figure": f"--name fig02 --frames {_CURVES}/consumption.parquet {_CURVES}/runs.parquet "
    "--outputs fig02.pdf fig02.png fig02.svg fig02.csv fig02.json",
    "table": f"--name table1 --frames {_CURVES}/token_covariances.parquet {_CURVES}/runs.parquet "
    "--outputs table1.csv table1.md table1.json",
    "report": f"{_EXPERIMENT} --output results/smoke/report/index.html",
    "memory": "--experiment config/experiments/paper.yaml --gpu-gib 80",
    "plan": "--experiment config/experiments/paper.yaml --gpus 64 --gpu h100",
    "lineage": "results/smoke/figures/fig02.pdf",
    "restore": "--tracking-uri http://localhost:5000 --results results",
    "audit": "--results results",
    "track follow": "--invocation smoke-1 --parent-pid 4711",
    "track finish": "--invocation smoke-1 --status FINISHED",
    "track sync": "--tracking-uri http://localhost:5000",
    "preflight": "--config experiment=paper gpu_type=h100",
    "render-prompts": "",
    "schema": "experiment",
    "completion": "bash",
}
"""Arguments of each stage that show its use, on files of `snakemake --config experiment=smoke`."""


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults where there are any, and the lines of examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False) or action.default == [] or action.required:
            return action.help
        return super()._get_help_string(action)


def example(stage: str) -> str:
    """The example of a stage as a shell takes it, over several lines where it is long."""
    command = f"entropy-mechanism {stage} {EXAMPLES[stage]}"
    lines = textwrap.TextWrapper(
        98, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    ).wrap(command)
    return "example:\n" + " \\\n".join(lines)
