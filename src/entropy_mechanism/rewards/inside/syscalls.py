"""System calls that Python 3.11 does not offer, and the filter of those that programs may not make."""

import ctypes
import os
import platform
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_CAPABILITY_VERSION_3 = 0x20080522

_EPERM, _ENOSYS = 1, 38
_RETURN_ALLOW, _RETURN_ERRNO, _RETURN_KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000
"""Bit of the numbers by which x86-64 offers its calls a second time."""

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS: dict[str, tuple[int, int | None]] = {
    # name: number on x86-64 and on aarch64; None where the machine does not have it
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, None),
    "vfork": (58, None),
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "personality": (135, 92),
}
"""Calls that a program may not make. `clone` may start a thread; `clone3`, whose arguments a filter cannot see, is
said not to exist, so that the C library falls back on `clone`."""


def call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char]) -> int:
    """One function of the C library that returns -1 on failure. Raises OSError naming it."""
    result = getattr(_LIBC, name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def drop_capabilities() -> None:
    """Give up every capability of this thread."""
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION_3, 0))
    call("capset", header, ctypes.create_string_buffer(24))


def forbid() -> None:
    """Let this process and its threads make none of `CALLS` any more, whatever they run."""
    program = ctypes.create_string_buffer(filter_program(platform.machine()))
    description = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", (len(program) - 1) // 8, ctypes.addressof(program))
    )
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, description, 0, 0)


def filter_program(machine: str) -> bytes:
    """The filter as classic BPF, eight bytes an instruction. Raises OSError for an unknown machine."""
    if machine not in ARCHITECTURES:
        raise OSError(
            f"no system call filter for machine {machine!r}; there is one for {', '.join(ARCHITECTURES)}"
        )
    column = list(ARCHITECTURES).index(machine)
    numbers = {name: number for name, pair in CALLS.items() if (number := pair[column]) is not None}
    clone, clone3 = numbers.pop("clone"), numbers.pop("clone3")
    # (operation, skip when true, skip when false, value); offsets 4, 0, 16: architecture, number, first argument
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, ARCHITECTURES[machine]), (_RETURN, 0, 0, _RETURN_KILL)]
    steps += [(_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        steps += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _RETURN_KILL)]
    steps += [(_EQUAL, 0, 1, clone3), (_RETURN, 0, 0, _RETURN_ERRNO | _ENOSYS)]
    for number in numbers.values():
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _RETURN_ERRNO | _EPERM)]
    steps += [(_EQUAL, 1, 0, clone), (_RETURN, 0, 0, _RETURN_ALLOW)]
    steps += [(_LOAD, 0, 0, 16), (_ANY_BIT, 0, 1, _CLONE_THREAD), (_RETURN, 0, 0, _RETURN_ALLOW)]
    steps += [(_RETURN, 0, 0, _RETURN_ERRNO | _EPERM)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)
