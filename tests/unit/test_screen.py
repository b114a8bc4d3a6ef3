"""What a run tells of itself: the time that is left, and how it ended."""

from pathlib import Path

import pytest
from small_disk import small_disk

from entropy_mechanism import costs, screen
from entropy_mechanism.config import FileSet, load_experiment
from entropy_mechanism.paths import Paths
from entropy_mechanism.plan import Plan
from entropy_mechanism.stages.plan import Bill

PRESETS = Path(__file__).parents[2] / "config/experiments"
TINY, FULL, PAPER = (Plan(load_experiment(PRESETS / f"{name}.yaml")) for name in ("tiny", "tiny-full", "paper"))


class Time:
    """Seconds that a test lets pass."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


def clock(time, *seconds, cores=1, used=1):
    return screen.Clock({job: (expected, used) for job, expected in enumerate(seconds)}, cores, time)


def ran(clock, time, job, seconds):
    clock.start(job)
    time.now += seconds
    clock.end(job)


def test_before_anything_ran_the_time_left_is_the_expected_work_on_all_cores(time):
    assert clock(time, 30, 10, 20, cores=2).left() == 30
    assert clock(time, 30, 10, 20, cores=1).left() == 60


def test_no_job_is_expected_to_be_divided_among_cores(time):
    assert clock(time, 100, 10, cores=8).left() == 100


def test_a_job_of_several_cores_counts_with_all_of_them(time):
    assert clock(time, 30, 30, 30, cores=4, used=2).left() == 45


def test_what_has_ended_is_not_left_and_what_runs_counts_with_its_rest(time):
    found = clock(time, 40, 40)
    ran(found, time, 0, 40)
    assert found.left() == 40
    found.start(1)
    time.now += 30
    assert found.left() == 10
    time.now += 300
    assert found.left() == 4  # it may end at any time, or not


def test_a_machine_of_half_the_speed_is_noticed_more_the_more_has_run(time):
    found, pace = clock(time, *200 * [30.0]), []
    for job in range(100):
        ran(found, time, job, 60)
        pace.append(found.left() / (30 * (199 - job)))
    assert pace == sorted(pace)
    assert 1.3 < pace[0] < 1.4  # a minute of belief in the estimate, half a minute of experience
    assert 1.95 < pace[-1] < 2


def test_a_job_that_is_tried_again_counts_from_its_last_start(time):
    found = clock(time, 40)
    found.start(0)
    time.now += 30
    found.start(0)
    assert found.left() == 40


def test_jobs_are_expected_to_take_what_the_plan_of_the_experiment_says():
    bill = Bill(TINY, "h100", costs.Scale())
    for run, cost in bill.runs.items():
        assert screen.expected(TINY, "train", {"run": run}) == pytest.approx(cost.seconds, rel=0.02)
    for policy, cost in bill.answers.items():
        found = screen.expected(TINY, "sample", {"policy": policy})
        assert found == pytest.approx(cost.seconds, rel=0.02)
    warmups = [screen.expected(TINY, "make_model", {"model": model}) for model in TINY.models]
    assert sum(warmups) == pytest.approx(bill.rest - len(TINY.runs) * costs.SMALL_JOBS, rel=0.02)


def test_training_on_programs_is_expected_to_run_them():
    code = next(name for name, run in FULL.runs.items() if run.train_set == "code")
    found = screen.expected(FULL, "train", {"run": code})
    assert found == pytest.approx(Bill(FULL, "h100", costs.Scale()).runs[code].seconds, rel=0.02)


def test_a_file_of_problems_whose_size_nobody_has_read_stops_no_run():
    evaluation, mine = TINY.experiment.evaluation, FileSet(kind="file", path="mine.jsonl")
    asked = {"mine": next(iter(evaluation.benchmarks.values())).model_copy(update={"data": "mine"})}
    changed = {"data": {"mine": mine, **TINY.experiment.data}, "validation": "mine"}
    changed["evaluation"] = evaluation.model_copy(update={"benchmarks": asked})
    plan = Plan(TINY.experiment.model_copy(update=changed))
    policy, run = next(iter(plan.policies)), next(iter(plan.runs))
    assert screen.expected(plan, "sample", {"policy": policy}) > 0
    assert screen.expected(plan, "train", {"run": run}) > 0


def test_no_time_is_told_where_a_job_downloads_or_needs_a_gpu():
    run = "qwen2.5-7b--dapo-math--grpo--s1"
    assert screen.clock(TINY, [(1, "figure", {"figure": "fig01"}, 1)], 2).left() == costs.SMALL_JOB
    assert screen.clock(PAPER, [(1, "figure", {}, 1), (2, "train", {"run": run}, 8)], 2) is None
    assert screen.clock(PAPER, [(1, "fetch_model", {"model": "qwen2.5-7b"}, 1)], 2) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.3, "5 s"), (42, "40 s"), (58, "1 min"), (89, "1 min"), (340, "6 min"), (3500, "58 min"), (3600, "1 h"),
     (4900, "1 h 20 min"), (36_000, "10 h")],
)  # fmt: skip
def test_a_duration_claims_no_more_than_is_known(seconds, words):
    assert screen.duration(seconds) == words


def test_the_beginning_says_how_much_where_and_how_to_stop():
    text = screen.beginning(Paths(Path("results"), "tiny"), 109, 2, 340)
    assert text.startswith(
        "tiny: 109 jobs on 2 cores, about 6 min; a log of each is in results/tiny/logs/<rule>/."
    )
    assert "Ctrl-C stops, and the same command goes on" in text
    assert screen.beginning(Paths(Path("r"), "paper"), 9, None, None).startswith("paper: 9 jobs; a log of each")


@pytest.fixture
def paths(tmp_path):
    paths = Paths(tmp_path, "tiny")
    log = Path(paths.log("report"))
    log.parent.mkdir(parents=True)
    log.write_text("warning: a library\nWhat came out of tiny, a title:\nGRPO ends with 0.03.\n")
    return paths


def test_a_run_that_made_the_report_ends_with_its_numbers_and_then_its_path(paths):
    assert screen.ending(paths, ["x.csv", paths.report]).splitlines() == [
        "What came out of tiny, a title:",
        "GRPO ends with 0.03.",
        f"Open {paths.report} in a browser.",
    ]
    Path(paths.log("report")).unlink()
    assert screen.ending(paths, [paths.report]) == f"Open {paths.report} in a browser."


def test_a_run_that_made_something_else_ends_with_its_files(paths):
    assert screen.ending(paths, ["a.pdf", "a.png"]) == "Done: a.pdf, a.png"
    many = [f"results/tiny/data/{name}.parquet" for name in "abcdef"]
    assert screen.ending(paths, many) == "Done: 6 files in results/tiny/data"


def test_a_failed_run_says_why_which_log_tells_more_and_what_to_do(paths, tmp_path):
    log = tmp_path / "train.log"
    log.write_text("step 1\nerror: there is no gpu\nkilled\n")
    text = screen.stopping(paths, [screen.Job("train nano--s1", (log,))], 4, 9)
    assert text.splitlines() == [
        f"Failed: train nano--s1: there is no gpu; its log: {log}",
        "4 of 9 jobs are done and kept. When the cause is gone, the same command goes on from there.",
    ]
    log.write_text("Traceback\nZeroDivisionError: division by zero\n\n")
    assert "ZeroDivisionError: division by zero; its log" in screen.stopping(
        paths, [screen.Job("x", (log,))], 4, 9
    )
    log.unlink()
    assert screen.stopping(paths, [screen.Job("x", (log,))], 4, 9).startswith(f"Failed: x; its log: {log}\n")
    many = screen.stopping(paths, [screen.Job(str(n), ()) for n in range(5)], 4, 9)
    assert many.splitlines()[:4] == ["Failed: 0", "Failed: 1", "Failed: 2", "2 more jobs failed."]


def test_a_log_for_which_its_disk_had_no_room_is_told_of(paths, tmp_path):
    log = tmp_path / "disk/train.log"
    with small_disk(log.parent, "64k") as disk:

        def told():
            return screen.stopping(paths, [screen.Job("x", (log,))], 4, 9)

        full = f"Failed: x: no space left on the file system of {log.parent}; free some"
        disk.fill()
        assert told().startswith(full)
        log.touch()
        assert told().startswith(full)
        disk.empty()
        log.write_text("error: there is no gpu\n")
        disk.fill()
        assert told().startswith("Failed: x: there is no gpu; its log")


def test_a_log_whose_disk_cannot_be_asked_is_named_all_the_same(paths, tmp_path, monkeypatch):
    def stale(path):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(screen.shutil, "disk_usage", stale)
    log = tmp_path / "train.log"
    assert screen.stopping(paths, [screen.Job("x", (log,))], 4, 9).startswith(f"Failed: x; its log: {log}\n")


def test_an_interrupted_run_says_what_is_kept_and_what_to_type(paths):
    text = screen.stopping(paths, [], 4, 9)
    assert text.startswith("Interrupted: 4 of 9 jobs are done and kept")
    assert "Type the same command again" in text
    assert f"{paths.root}/logs/<rule>/" in text
