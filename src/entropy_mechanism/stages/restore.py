"""MLflow -> a results folder as it was, on this or another machine."""

from pathlib import Path

from entropy_mechanism.tracking.history import title
from entropy_mechanism.tracking.restore import Absent
from entropy_mechanism.tracking.restore import restore as bring


def restore(
    tracking_uri: str, experiment: str, artifacts: Path | None, workflow_experiment: list[str], results: Path
) -> int:
    """Bring everything that MLflow holds, and say what it does not.

    Exit status 1 when a file is not the recorded one; what was too large to be sent is no failure.
    """
    done = bring(results, tracking_uri, experiment, artifacts=artifacts, only=workflow_experiment)
    for name in done.without_record:
        print(f"no record: {name} (still running, or sent by an earlier version)")
    for absent in done.absent:
        print(f"not in MLflow: {_said(absent)}")
    for path in done.kept:
        print(f"left as it is, since it is another file than the recorded one: {path}")
    for name in done.damaged:
        print(f"not restored, since it is not the file that was recorded: {name}")
    print(
        f"restore: {done.records} records, {done.placed} files placed ({done.size / 1e6:.1f} MB), "
        f"{done.present} were there, {len(done.absent)} not in MLflow, "
        f"{len(done.kept) + len(done.damaged)} not as recorded"
    )
    return 1 if done.kept or done.damaged else 0


def _said(absent: Absent) -> str:
    """One line about an output that was not sent: what it is, and who needs it."""
    file, record = absent.file, absent.record
    readers = sorted({title(reader) for reader in absent.readers})
    if file.path.startswith("store/"):
        needs = (
            f"to go on from {title(record)}: other benchmarks, its token records, a training without repetition"
        )
    else:
        needs = "Snakemake makes it again"
    if readers:
        needs += f"; read by {', '.join(readers)}"
    return f"{file.path}, {file.size / 1e6:.1f} MB, sha256 {file.sha256}, made by {title(record)} ({needs})"
