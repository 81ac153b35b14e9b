"""What a process does outside its own folders: files that it writes, hosts that it looks up, addresses that it connects to.

Belongs here: running a command under strace, which sees native code too, and reading the trace. Does not belong here: expectations.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dssm_assets_tests.programs import find_program

_CALLS: Final = (
    "connect,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,sendto,sendmsg,sendmmsg"
)
_WRITES: Final = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|^(creat|mkdir|rename|link|symlink)")
_LOOK_UPS: Final = ("/etc/resolv.conf", "/etc/hosts", "/run/systemd/resolve")
"""Files that are read in order to look up a host."""
_PATH: Final = re.compile(r'"(/[^"]*)"')
_HARMLESS: Final = re.compile(r"/proc/|/dev/(?!shm/pytest-of-)")
"""Where writing leaves nothing. Folders of tests may be in memory: they are no devices."""


@dataclass(frozen=True)
class Outside:
    """What a process did outside the folders it was given: its exit status, written paths, look-ups and connections."""

    status: int
    written: frozenset[str]
    look_ups: frozenset[str]
    connections: frozenset[str]


def can_trace(folder: Path) -> bool:
    """Returns whether processes may be traced here. The test is skipped where strace is missing."""
    command = [find_program("strace"), "--seccomp-bpf", "-f", "-o", str(folder / "trial"), sys.executable, "-c", ""]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def watch(command: Sequence[str], environment: Mapping[str, str], own: Sequence[Path], trace: Path) -> Outside:
    """Runs a command to its end; `own` are the folders it may write."""
    traced = ["strace", "--seccomp-bpf", "-f", "-s", "500", "-e", f"trace={_CALLS}", "-o", str(trace), *command]
    status = subprocess.run(traced, env=dict(environment), check=False, timeout=280).returncode
    return read_trace(trace.read_text(errors="replace"), own, status)


def read_trace(text: str, own: Sequence[Path], status: int = 0) -> Outside:
    """Returns what a trace says of calls that succeeded, or that failed for another reason than a missing file."""
    written, look_ups, connections = set(), set(), set()
    allowed = tuple(map(str, own))
    for line in text.splitlines():
        call = line.partition(" ")[2].strip()
        if call.startswith("connect("):
            if "AF_INET" in call and not re.search(r'"(127\.[\d.]+|::1)"', call):
                connections.add(call)
            continue
        paths = [path for path in _PATH.findall(call) if not path.startswith(allowed) and not _HARMLESS.match(path)]
        if any(path.startswith(_LOOK_UPS) for path in paths):
            look_ups.add(call)
        elif paths and _WRITES.search(call) and "ENOENT" not in call and "EEXIST" not in call:
            written |= set(paths)
    return Outside(status, frozenset(written), frozenset(look_ups), frozenset(connections))
