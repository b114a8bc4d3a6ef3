"""When a stage should stop: on SIGTERM or Ctrl-C, or before a deadline known in advance.

Imports nothing heavy, so that a stage can listen before it imports what it computes with.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

INTERRUPTED = 75
"""Exit status of a stage that stopped in time and goes on when started again (EX_TEMPFAIL of sysexits.h)."""
UNFIT = 78
"""Exit status of a rank whose GPU is too small (EX_CONFIG)."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
RELAYED = (*SIGNALS, signal.SIGUSR1)
"""What a process that a launcher supervises finds blocked, until it listens."""
RECENT = 100
"""Steps whose slowest one stands for the next."""
MARGIN = 1.25
"""Time set aside for the next step and its checkpoint, in units of what they took at most until now."""
_IMPORTED = time.monotonic()


def process_age() -> float:
    """Seconds since this process started; since this module was imported where there is no /proc."""
    try:
        started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(started) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.monotonic() - _IMPORTED


class StopRequest:
    """The question that a loop asks when it can stop cleanly."""

    def __init__(
        self, deadline: float | None = None, age: Callable[[], float] = process_age, supervised: bool = False
    ) -> None:
        """Take SIGTERM and SIGINT over: the first asks to stop, a second of either kind ends the process at once.

        `deadline` is the greatest `age` in seconds that the process may reach. A `supervised` process leaves both
        signals to the one that started it, which asks it to stop with SIGUSR1.
        """
        self.reason: str | None = None
        """Why to stop; None as long as there is no reason."""
        self.others: Callable[[], str | None] = lambda: None
        """Asked for a reason that others have to stop."""
        self.deadline, self._age = deadline, age
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._checkpoints: deque[float] = deque(maxlen=RECENT)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN if supervised else self._note)
        if supervised:
            signal.signal(signal.SIGUSR1, self._note)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, RELAYED)

    def left(self) -> float | None:
        """Seconds until the deadline; None when there is none."""
        return None if self.deadline is None else self.deadline - self._age()

    def _note(self, number: int, frame: object) -> None:
        self.reason = signal.Signals(number).name
        if number in SIGNALS:
            for either in SIGNALS:
                signal.signal(either, signal.SIG_DFL)

    def took(self, step: float, checkpoint: float) -> None:
        """Learn how many seconds a step took, and the checkpoint before it (0 when there was none)."""
        self._steps.append(step)
        self._checkpoints.append(checkpoint)

    def __call__(self) -> bool:
        """Whether to stop now: asked to, or no time for another step and its checkpoint.

        The first step is tried as long as there is any time left. A checkpoint is taken to need as long as a step
        until there was one.
        """
        self.reason = self.reason or self.others()
        left = self.left()
        if self.reason is None and left is not None:
            step = max(self._steps, default=0.0)
            needed = MARGIN * (step + (max(self._checkpoints, default=0.0) or step))
            if left <= needed:
                self.reason = f"deadline: {left:.1f} s left, another step and checkpoint may take {needed:.1f} s"
        return self.reason is not None

    def leave_if_asked(self, what: str) -> None:
        """End the process with status 75 when there is a reason to; `what` was being done."""
        if self():
            tell(f"{what}: stopped ({self.reason}); start again to go on")
            raise SystemExit(INTERRUPTED)


def tell(message: str) -> None:
    """Print a line, if anyone is left to read it: Ctrl-C also ends the `tee` behind a job."""
    try:
        print(message, flush=True)
    except OSError:
        _silence()


def _silence() -> None:
    """Let all further output go nowhere, or Python would fail again while it shuts down."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
