"""`make bench`: measure every topic, or those named, then print and write the tables.

    python benchmarks/suite.py [topic ...]
    python benchmarks/suite.py --quick          # smallest sizes, into a temporary folder: shows that all work

Run it on a machine with nothing else to do. Whatever fails is named at the end; the others' results stand.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure

TOPICS = ("same_work", "rl_step", "tried", "scaling", "logprobs", "selection", "workflow", "analysis", "gpu")
FOLDER = Path(__file__).parent


def main() -> None:
    """Run the topics one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topics", nargs="*", default=[], metavar="topic", help=", ".join(TOPICS))
    parser.add_argument("--quick", action="store_true", help="smallest sizes: shows that it works, and no speed")
    chosen = parser.parse_args()
    if unknown := set(chosen.topics) - set(TOPICS):
        parser.error(f"found {', '.join(sorted(unknown))}; allowed: {', '.join(TOPICS)}")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, every start of a job compiles the project again
    failed = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as shared:
        os.environ[measure.SHARED] = shared
        quick = ["--quick", "--results", folder] if chosen.quick else []
        for topic in chosen.topics or TOPICS:
            began = time.monotonic()
            print(f"--- {topic}", flush=True)
            if subprocess.run([sys.executable, FOLDER / f"{topic}.py", *quick]).returncode:
                failed.append(topic)
            print(f"--- {topic}: {time.monotonic() - began:.0f} s", flush=True)
        subprocess.run([sys.executable, FOLDER / "page.py", *([folder] if chosen.quick else [])], check=True)
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
