"""Kill one training run at many random moments: python tests/pipeline/torture.py [--kills 200] [--seed N]."""

import argparse
import random
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path

from trainers import AtEvent, Trainers, random_moment


def main() -> None:
    """Kill, start again, and compare whenever a run ends; a new run begins until there were enough kills."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    arguments = parser.parse_args()
    print(f"{arguments.kills} kills, seed {arguments.seed}", flush=True)
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        trainers = Trainers(Path(folder))
        begun = time.monotonic()
        trainers.finish(*trainers.command("whole"))
        seconds = time.monotonic() - begun
        kills, runs, attempts, at_event = 0, 0, 0, 0
        while kills < arguments.kills:
            name = f"run-{runs}"
            moment = random_moment(generator, seconds)
            status = trainers.kill(name, moment)
            attempts += 1
            kills += status == -signal.SIGKILL
            at_event += status == -signal.SIGKILL and isinstance(moment, AtEvent)
            if status not in (0, -signal.SIGKILL):
                sys.exit(f"seed {arguments.seed}, {name}, {moment}: status {status}\n{trainers.text()[-3000:]}")
            if status == 0 or kills == arguments.kills:
                trainers.finish(*trainers.command(name))
                trainers.assert_alike(name, "whole")
                runs += 1
                print(f"{kills} kills in {attempts} attempts, {runs} runs ended alike", flush=True)
        trainers.close()
    spent = time.monotonic() - begun
    print(f"{kills} kills ({at_event} at file operations), {runs} runs bit-identical, {spent:.0f} s")


if __name__ == "__main__":
    main()
