"""What kind of place a folder or an address is: its file system, locks, room, and whether a server answers."""

import fcntl
import re
import shutil
import socket
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

from entropy_mechanism.files import nearest

LOCAL = frozenset(
    ("bcachefs", "btrfs", "devtmpfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs")
)
"""File systems of one machine; what an NFS server exports is one of these on that server itself."""
PORTS = {"http": 80, "https": 443}


def file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of the file system that holds a path, such as `nfs4`; empty where the system does not say."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    place, found = nearest(path).resolve(), (0, "")
    for _, at, kind, *_ in map(str.split, lines):
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), at))
        if place.is_relative_to(point) and len(point.parts) >= found[0]:  # of two at one point, the later is seen
            found = (len(point.parts), kind)
    return found[1]


def writable(folder: Path) -> None:
    """Write a file, and lock it. Raises the OSError of what is not possible; nothing is left behind."""
    with tempfile.NamedTemporaryFile(dir=nearest(folder), prefix=".preflight-") as handle:
        handle.write(b"x")
        handle.flush()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LockError(error.errno, error.strerror) from error


class LockError(OSError):
    """A file could be written and not locked."""


def free(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    return shutil.disk_usage(nearest(folder)).free


def reach(address: str, seconds: float = 1.0) -> None:
    """Connect to the server of an http address, or to the proxy that leads there. Raises OSError otherwise."""
    parts = urllib.parse.urlsplit(address)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    if not parts.hostname:
        raise OSError(f"{address} names no server")
    socket.create_connection((parts.hostname, parts.port or PORTS.get(parts.scheme, 80)), timeout=seconds).close()
