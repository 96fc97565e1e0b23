"""A filter of system calls for programs that a model wrote: no memory outside their limits, no new namespaces.

The limits of a process do not count shared memory that is not mapped, and a new user namespace gives rights over
further parts of the kernel. Programs of a few lines need neither.
"""

import platform
import struct
import sys

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
"""Where `struct seccomp_data` has them; of the argument, the lower half (both machines below are little-endian)."""
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NOT_PERMITTED, _NOT_THERE = 1, 38
_NEW_NAMESPACES = 0x7E020000
"""Flags of clone: mount, cgroup, uts, ipc, user, pid and net."""
_OTHER_ABI = 0x40000000
"""Numbers from here on are x32's, a second way to make every call."""

_FORBIDDEN = [
    *("shmget", "memfd_create", "memfd_secret", "unshare", "setns", "ptrace", "keyctl", "add_key", "request_key"),
    *("io_uring_setup", "userfaultfd", "bpf", "perf_event_open", "process_vm_readv", "mount"),
]
_MACHINES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        dict(zip(_FORBIDDEN, (29, 319, 447, 272, 308, 101, 250, 248, 249, 425, 323, 321, 298, 310, 165), strict=True))
        | {"clone": 56, "clone3": 435},
    ),
    "aarch64": (
        0xC00000B7,
        dict(zip(_FORBIDDEN, (194, 279, 447, 97, 268, 117, 219, 217, 218, 425, 282, 280, 241, 270, 40), strict=True))
        | {"clone": 220, "clone3": 435},
    ),
}
"""Machine -> its number in the audit subsystem, and its numbers of calls."""


def system_call_filter(machine: str | None = None) -> bytes | None:
    """Returns the filter as bubblewrap's `--seccomp` reads it; None for a machine whose numbers are not known here.

    Args:
        machine: as `platform.machine()` names it; None for this one.
    """
    machine = platform.machine() if machine is None else machine
    if machine not in _MACHINES or sys.byteorder != "little":
        return None
    architecture, numbers = _MACHINES[machine]
    refused = [numbers[name] for name in _FORBIDDEN]
    # From the end of the program: allow, not there, not permitted. A jump counts instructions after the next one.
    ends = [(_RETURN, _ERROR | _NOT_PERMITTED), (_RETURN, _ERROR | _NOT_THERE), (_RETURN, _ALLOW)]
    tests: list[tuple[int, int, str]] = [(_JUMP_AT_LEAST, _OTHER_ABI, "not permitted")]
    tests += [(_JUMP_EQUAL, number, "not permitted") for number in refused]
    tests += [(_JUMP_EQUAL, numbers["clone3"], "not there")]  # its flags are out of reach; libraries then take clone
    program = [
        struct.pack("=HBBI", _LOAD, 0, 0, _ARCHITECTURE_AT),
        struct.pack("=HBBI", _JUMP_EQUAL, 1, 0, architecture),
        struct.pack("=HBBI", _RETURN, 0, 0, _KILL),
        struct.pack("=HBBI", _LOAD, 0, 0, _NUMBER_AT),
    ]
    after_tests = 3  # is it clone? its flags; are they of namespaces?
    for place, (kind, value, verdict) in enumerate(tests):
        to_ends = len(tests) - place - 1 + after_tests
        program.append(struct.pack("=HBBI", kind, to_ends + (verdict == "not there"), 0, value))
    program += [
        struct.pack("=HBBI", _JUMP_EQUAL, 0, 4, numbers["clone"]),
        struct.pack("=HBBI", _LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        struct.pack("=HBBI", _JUMP_ANY_BIT, 0, 2, _NEW_NAMESPACES),
    ]
    program += [struct.pack("=HBBI", kind, 0, 0, value) for kind, value in ends]
    return b"".join(program)
