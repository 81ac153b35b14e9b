"""The commands and the Python of a page, run as written in one folder.

Each `dssm-assets` command and each block of Python is a process of its own, forked from one that has imported the package; anything
else is run by bash, whose variables stay. `serve` stays, too, until the next one. What is changed: ports, hosts of others, and the
number of trials.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from dssm_assets_tests import quick_processes

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
CHANGED: Final = {"recall.example.com": "127.0.0.1", "--host 0.0.0.0": "--host 127.0.0.1", "--trials 20": "--trials 2"}
_ASSIGNMENT: Final = re.compile(r"[A-Z_]+=")
_START_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Piece:
    """One command line, or one block of Python, of a page."""

    page: str
    is_python: bool
    text: str


def pieces_of(page: str) -> list[Piece]:
    """Returns the command lines and blocks of Python of a page, in order; also commands within sentences, if they have arguments.

    Those within sentences whose arguments are words in capitals or dots are forms, not commands.
    """
    found: list[Piece] = []
    pattern = r"```(bash|python)\n(.*?)```|```.*?```|`(dssm-assets [\w-]+ [^`\n]+|dssm-assets (?:cleanup|catalog|validate))`"
    for language, block, within in re.findall(pattern, PAGES[page], flags=re.DOTALL):
        if language == "python":
            if ">>> " not in block:
                found.append(Piece(page, True, block))
            continue
        lines = block.splitlines() if block else [within]
        if within and re.search(r"\.\.\.|>|\b[A-Z]{2,}\b(?!\.parquet)", within):
            continue
        parts = [part for line in lines for part in line.partition(" #")[0].split("&&")]
        found += [Piece(page, False, part.strip()) for part in parts if part.strip()]
    return found


@dataclass
class PageRun:
    """Runs pieces of pages in a folder."""

    folder: Path
    port: int
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    _service: BaseProcess | None = None

    def run(self, piece: Piece) -> None:
        """Runs a piece.

        Raises:
            AssertionError: it failed; with what it printed.
        """
        text = piece.text.replace(":8000", f":{self.port}")
        for before, now in CHANGED.items():
            text = text.replace(before, now)
        if piece.is_python:
            self._wait(self._start(_run_python, text), piece)
            return
        words = shlex.split(text)
        own = [word for word in words if _ASSIGNMENT.match(word) or word == "dssm-assets"]
        if words[: len(own)] != own or "dssm-assets" not in own:
            self._run_by_bash(text)
            return
        variables = dict(word.split("=", 1) for word in own[:-1])
        arguments = words[len(own) :]
        if arguments[0] == "serve":
            self._serve(arguments, variables)
        else:
            self._wait(self._start(_run_command, arguments, variables), piece)

    def stop(self) -> None:
        """Ends the service, if one runs."""
        if self._service is not None:
            self._service.terminate()
            self._service.join()
            self._service = None

    def _start(self, work: Any, given: Any, variables: dict[str, str] | None = None) -> BaseProcess:
        environment = {**self.environment, **(variables or {})}
        process = quick_processes.context().Process(target=_run, args=(work, given, str(self.folder), environment))
        process.start()
        return process

    def _wait(self, process: BaseProcess, piece: Piece) -> None:
        process.join()
        assert process.exitcode == 0, f"{piece.page}: {piece.text}\n{self._printed()}"

    def _printed(self) -> str:
        return (self.folder / "printed.txt").read_text(encoding="utf-8")[-3000:]

    def _run_by_bash(self, text: str) -> None:
        state = self.folder / "environment"
        script = f"set -ea\n{text}\nenv -0 > {state}"
        environment = {**self.environment, "CURL_CA_BUNDLE": str(self.folder / "cert.pem"), "CURL_HOME": str(self.folder)}
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        lines = state.read_text(encoding="utf-8").split("\0")
        self.environment = dict(line.split("=", 1) for line in lines if "=" in line)

    def _serve(self, arguments: list[str], variables: dict[str, str]) -> None:
        self.stop()
        self._service = self._start(_run_command, [*arguments, "--port", str(self.port)], variables)
        scheme, end = "https" if "--tls-key" in arguments else "http", time.monotonic() + _START_SECONDS
        unverified = ssl._create_unverified_context() if scheme == "https" else None
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{scheme}://127.0.0.1:{self.port}/ready", context=unverified)
                return
            assert self._service.is_alive(), f"{arguments}\n{self._printed()}"
            assert time.monotonic() < end, f"{arguments}\n{self._printed()}"
            time.sleep(0.05)


@contextlib.contextmanager
def running_in(folder: Path) -> Iterator[PageRun]:
    """Yields what runs the pieces of a page in a folder; its service ends with it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / ".curlrc").write_text("fail\nsilent\nshow-error\n", encoding="utf-8")
    run = PageRun(folder, port)
    try:
        yield run
    finally:
        run.stop()


def _run(work: Any, given: Any, folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    printed = os.open("printed.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(printed, stream)
    sys.exit(work(given))


def _run_command(arguments: list[str]) -> int:
    from dssm_assets.cli import main

    return main(arguments)


def _run_python(text: str) -> int:
    import dagster as dg
    import polars as pl

    exec(compile(text, "page", "exec"), {"__name__": "page", "dg": dg, "pl": pl, "my_loss": None})
    return 0
