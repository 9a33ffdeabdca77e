"""Stands in for `fusermount`, which `restic mount` calls to mount for it; enough for root, who needs no set-uid helper.

The protocol of libfuse: the caller leaves one end of a socket in _FUSE_COMMFD, and gets the opened device through it.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from pathlib import Path


def available() -> bool:
    """Whether this process may mount FUSE file systems."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


def install(directory: Path) -> None:
    """Put the stand-in under both of its names into a directory, to be found in PATH."""
    for name in ("fusermount", "fusermount3"):
        (directory / name).write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
        (directory / name).chmod(0o755)


def unmount(path: str) -> None:
    """Take a mount away, also one whose server is dead."""
    ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(path), 2)  # MNT_DETACH


def _mount(path: str) -> None:
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other,default_permissions"
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(
        b"restic", os.fsencode(path), b"fuse.restic", 1 | 2 | 4, options.encode()
    ):  # read-only, nosuid, nodev
        sys.exit(f"fusermount: {os.strerror(ctypes.get_errno())}")
    with socket.socket(fileno=int(os.environ["_FUSE_COMMFD"])) as caller:
        socket.send_fds(caller, [b"\0"], [device])


if __name__ == "__main__":
    if "-u" in sys.argv:
        unmount(sys.argv[-1])
    else:
        _mount(sys.argv[-1])
