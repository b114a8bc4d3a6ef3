"""The cost model: what doubles what, what arithmetic says, schedules, and estimates beside measured runs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from entropy_mechanism import costs
from entropy_mechanism.config import ConfigError, load_experiment
from entropy_mechanism.costs import GENERATED, MACHINES, PUBLISHED, Cost, Scale
from entropy_mechanism.plan import Plan
from entropy_mechanism.shapes import PUBLISHED as SHAPES
from entropy_mechanism.shapes import Shape
from entropy_mechanism.stages.plan import Bill, print_plan

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "config/experiments/paper.yaml"
PLAN = Plan(load_experiment(PAPER))
SEVEN = SHAPES["Qwen/Qwen2.5-7B"]
H100 = MACHINES["h100"]


def run(name="qwen2.5-7b--eurus2-math--grpo--s1", training=None, compute=None):
    config = PLAN.run_config(name)
    return config.model_copy(
        update={
            "training": config.training.model_copy(update=training or {}),
            "compute": config.compute.model_copy(update=compute or {}),
        }
    )


def cost(config, shape=SEVEN, problems=500, scale=None):
    return costs.cost(config, shape, problems, PUBLISHED, H100, scale or Scale())


def test_a_forward_pass_is_two_operations_a_weight_and_attention():
    # 28 blocks: queries and output 3584 x 3584, keys and values 3584 x 512, three matrices of the MLP, two norms.
    block = 2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18_944 + 2 * 3584
    weights = 28 * block + 152_064 * 3584
    assert costs.forward_flops(SEVEN, 0) == 2 * weights
    # Scores and their product with the values: 2 x 2 x 3584 for each token before, half of 1000 on average.
    assert costs.forward_flops(SEVEN, 1000) - 2 * weights == 28 * 4 * 3584 * 500


def test_steps_and_ranks_scale_what_they_should():
    one, longer = cost(run()), cost(run(training={"steps": 600}))
    assert longer.sample == pytest.approx(2 * one.sample)
    assert longer.train == pytest.approx(2 * one.train)
    wider = cost(run(compute={"ranks": 16}))
    assert one.train / 2 < wider.train < 0.6 * one.train
    assert one.sample / 2 < wider.sample < one.sample
    assert wider.device_hours > one.device_hours
    assert wider.seconds < one.seconds


def test_one_response_is_decoded_no_faster_than_the_weights_can_be_read():
    seconds = costs.decode_seconds(run(compute={"ranks": 1}), SEVEN, 1, 100, 1000, 1000, H100)
    floor = 1000 * (2 * SEVEN.parameters / H100.bandwidth + H100.call)
    assert floor < seconds < 1.2 * floor


def test_what_a_method_reads_once_more_costs_more():
    def train(name, **changes):
        return cost(run(f"qwen2.5-7b--{name}--s1", **changes)).train

    grpo = train("eurus2-math--grpo")
    reference = train("eurus2-math--reference-1e-3")
    assert (reference - grpo) / grpo == pytest.approx(1 / 5.5, rel=0.05)  # 1.5 before the update, 4 in it
    assert train("eurus2-math--prime") > 1.8 * grpo
    without = train("eurus2-math--grpo", compute={"activation_checkpointing": False})
    assert without / grpo == pytest.approx(4.5 / 5.5, rel=0.05)
    off = {"training": {"measure_entropy_change_every": 0}}
    selecting, clipping = train("dapo-math--kl-cov", **off), train("dapo-math--grpo", **off)
    assert (selecting - clipping) / clipping == pytest.approx(1 / 5.5, rel=0.05)


def test_larger_models_cost_more_and_programs_take_their_time():
    sizes = ["0.5b", "1.5b", "3b", "7b", "32b"]
    bill = Bill(PLAN, "h100", Scale()).runs
    hours = [bill[f"qwen2.5-{size}--eurus2-math--grpo--s1"].device_hours for size in sizes]
    assert hours == sorted(hours)
    math, code = (bill[f"qwen2.5-7b--{data}--grpo--s1"] for data in ("eurus2-math", "code"))
    steps, drawn, validations, problems = 300, 2 * 256 * 8, 76, 1024 + 500
    programs = 0.6 * (steps * drawn + validations * problems)
    assert code.other - math.other == pytest.approx(programs * 0.05 / 8)


def test_storage_is_final_weights_and_two_checkpoints_of_weights_and_moments():
    assert cost(run()).storage == pytest.approx((4 + 2 * 12) * SEVEN.parameters)
    prime = cost(run("qwen2.5-7b--eurus2-math--prime--s1")).storage
    assert prime == pytest.approx((4 + 2 * 24) * SEVEN.parameters)
    recorded = cost(run(training={"record_tokens_every": 100})).storage - cost(run()).storage
    assert recorded == pytest.approx(3 * 256 * 8 * 1024 * 17)  # steps 0, 100, 200; a third of 3,072 tokens


def job(name, devices, hours):
    return Cost(name, devices, 3600 * hours, 0, 0, 0, 0)


def test_runs_share_the_devices_there_are():
    jobs = [job("a", 4, 2), job("b", 4, 1), job("c", 8, 1)]
    assert costs.wall_seconds(jobs, 8) == 3 * 3600
    assert costs.wall_seconds(jobs, 16) == 2 * 3600
    assert costs.wall_seconds([], 8) == 0
    with pytest.raises(ValueError, match="found 6 devices; c needs 8 at once; allowed: that or more"):
        costs.wall_seconds(jobs, 6)


def test_a_calibrated_estimate_gives_back_what_was_measured():
    config = run()
    measured = {"sample": 61.0, "train": 47.0, "response": 700.0}
    scale = costs.calibrated(config, SEVEN, PUBLISHED, H100, measured)
    found = cost(config, scale=scale)
    assert found.sample == pytest.approx(300 * 61)
    assert found.train == pytest.approx(300 * 47)
    assert scale.response == 700
    assert cost(run(training={"steps": 600}), scale=scale).sample == pytest.approx(600 * 61)


@pytest.mark.parametrize(
    ("width", "heads", "steps", "measured"), [(16, 1, 100, 25.3), (64, 2, 100, 42.3), (96, 3, 100, 57.9)]
)
def test_tiny_runs_cost_about_what_was_measured_on_a_core(width, heads, steps, measured):
    """Processor seconds of GRPO on arithmetic, 32 x 8 responses and 4 updates a step, on an AMD EPYC."""
    tiny = Plan(load_experiment(ROOT / "config/experiments/tiny.yaml"))
    config = tiny.run_config("width64--train--grpo--s1")
    training = config.training.model_copy(update={"steps": steps, "record_tokens_every": 0})
    config = config.model_copy(update={"training": training})
    shape = Shape(2, width, heads, heads, 4 * width, 440)
    found = costs.cost(config, shape, 200, GENERATED, MACHINES["cpu"]).seconds
    assert found == pytest.approx(measured, rel=0.25)


def test_the_command_prints_every_run_and_adds_up(capsys, tmp_path):
    print_plan(PAPER, 64, "h100", None, False)
    text = capsys.readouterr().out
    bill = Bill(PLAN, "h100", Scale())
    assert all(name in text for name in PLAN.runs)
    total = sum(one.seconds * one.devices for one in bill.runs.values()) / 3600
    assert f"training    {total:,.0f} GPU hours" in text
    assert "on 64 GPUs" in text
    assert "estimate" in text
    lower = total / 64
    wall = float(text.split("wall time")[1].split()[0].replace(",", ""))
    assert lower < wall < 1.5 * lower
    weights = sum(2 * SHAPES[PLAN.experiment.models[model].id].parameters for model in PLAN.models)
    assert f"downloads   {weights / 1e9:,.0f} GB of models, and 15 published data sets" in text
    print_plan(PAPER, 64, "a100", None, False)
    older = capsys.readouterr().out
    assert float(older.split("training    ")[1].split()[0].replace(",", "")) > 1.5 * total
    with pytest.raises(ValueError, match=r"--gpus: found 8 devices; qwen2.5-32b--.* needs 32 at once"):
        print_plan(PAPER, 8, "h100", None, False)


def test_the_command_takes_a_measured_run_as_its_scale(capsys, tmp_path):
    smoke = ROOT / "config/experiments/smoke.yaml"
    config = Plan(load_experiment(smoke)).run_config("nano--train--grpo--s1")
    (tmp_path / "run.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    rows = 7
    series = {"time/sample": 60.0, "time/logprob": 20.0, "time/update": 10.0, "length/mean": 8.0}
    frame = pd.DataFrame({name: [value] * rows for name, value in series.items()})
    frame.loc[0, "time/sample"] = 1e6  # the first step starts everything, the last one trains nothing
    frame.loc[rows - 1, "time/update"] = 0.0
    frame.to_parquet(tmp_path / "metrics.parquet")
    print_plan(smoke, 1, "h100", tmp_path / "metrics.parquet", False)
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if line.startswith("nano--train--grpo--s1")).split()
    assert float(line[3]) > 6 * (60 + 30) / 60
    paper_scale = tmp_path / "other"
    paper_scale.mkdir()
    other = config.model_copy(update={"model": "giant"})
    (paper_scale / "run.yaml").write_text(json.dumps(other.model_dump(mode="json")))
    with pytest.raises(
        ConfigError, match=r"--calibrate: .* is a run of 'giant', which the experiment does not define"
    ):
        print_plan(smoke, 1, "h100", paper_scale, False)


def test_the_table_of_docs_reproducing_is_in_step_with_the_experiments(capsys, tmp_path):
    for name in ("paper", "tiny-full"):
        print_plan(ROOT / f"config/experiments/{name}.yaml", None, "h100", None, True)
    printed = capsys.readouterr().out
    document = (ROOT / "docs/reproducing.md").read_text()
    assert document.endswith(printed), "renew it: see the line above the tables in docs/reproducing.md"


def test_a_run_is_new_where_it_is_first_shown():
    lines = Bill(PLAN, "h100", Scale()).markdown("paper")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")][1:]
    number = {row[0]: [float(cell.replace(",", "")) for cell in row[-2:]] for row in rows}
    total = sum(one.device_hours for one in Bill(PLAN, "h100", Scale()).runs.values())
    assert sum(new for _, new in number.values()) == pytest.approx(total, rel=0.01)
    assert number["fig11"] == pytest.approx([number["table2"][0]] * 2)
    assert number["table2"][1] == 0


def test_estimating_imports_nothing_heavy():
    program = """
import sys
from pathlib import Path
from entropy_mechanism import costs
from entropy_mechanism.stages.plan import print_plan
print_plan(Path(sys.argv[1]), 64, "h100", None, False)
print(sorted({"torch", "mlflow", "matplotlib", "transformers", "pandas", "datasets"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", program, PAPER], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_every_constant_of_a_machine_matters():
    for name in ("flops", "decoding", "bandwidth", "call", "start", "transfer"):
        slower = replace(H100, **{name: getattr(H100, name) * (2 if name in ("call", "start") else 0.5)})
        found = costs.cost(run(), SEVEN, 500, PUBLISHED, slower).seconds
        assert found > cost(run()).seconds, name
