"""A small disk of its own: a tmpfs that can be filled, emptied and enlarged."""

import contextlib
import shutil
import subprocess

import pytest


class SmallDisk:
    """A tmpfs that is mounted on a folder."""

    def __init__(self, folder, size):
        self.folder, self.filler = folder, folder / "filler"
        folder.mkdir(parents=True, exist_ok=True)
        self._mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs")

    def _mount(self, *options):
        try:
            done = subprocess.run(["mount", *options, self.folder], capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no small disk to fill: this system has no `mount`")
        if done.returncode:
            pytest.skip(f"no small disk to fill: mounting a tmpfs is not allowed here ({done.stderr.strip()})")

    def fill(self, leave=0):
        """Leave not a byte, or `leave` bytes."""
        with contextlib.suppress(OSError), self.filler.open("ab", buffering=0) as handle:
            while shutil.disk_usage(self.folder).free > leave:
                handle.write(bytes(4096))

    def empty(self):
        """Undo `fill`."""
        self.filler.unlink()

    def enlarge(self, size):
        self._mount("-o", f"remount,size={size}")

    def protect(self):
        """Let nobody write, root neither."""
        self._mount("-o", "remount,ro")

    def unmount(self):
        subprocess.run(["umount", "--lazy", self.folder], check=True)


@contextlib.contextmanager
def small_disk(folder, size):
    disk = SmallDisk(folder, size)
    try:
        yield disk
    finally:
        disk.unmount()
