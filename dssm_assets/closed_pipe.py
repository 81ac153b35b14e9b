"""Stdout whose reader has left, as in `dssm-assets hit-rates | head`."""

from __future__ import annotations

import os
import select
import sys


def is_reader_gone() -> bool:
    """Returns whether nobody reads stdout any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(found & select.POLLERR for _, found in poll.poll(0))


def discard_stdout() -> None:
    """Sends what is printed from now on nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
