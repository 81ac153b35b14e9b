"""The services of docker-compose.yaml as processes of this machine, each in a session of its own as in a container.

A process gets only the environment from the file, and what chooses threads and numpy's kernels. Two things differ from a
container: its network (so free ports are chosen for the object store's inner parts) and the image's entry point, which creates a
database on first start.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import s3fs

from dssm_assets_tests.deploy.compose_file import CONTAINER_FOLDERS, DEPLOY, Service, config_files, services
from dssm_assets_tests.programs import find_program

HOST = "127.0.0.1"
BUCKET = "dssm"
STOP_SECONDS = 60
_PORTS = {"code-server": "DSSM_CODE_SERVER_PORT", "webserver": "DSSM_WEBSERVER_PORT", "recall": "DSSM_RECALL_PORT"}
"""A health check that starts Python takes seconds of a core: it begins once the service listens."""
_STOP_SIGNALS = {"postgres": signal.SIGINT}
"""The postgres image stops by SIGINT: open sessions end, nothing is lost. All others stop by SIGTERM."""


class Services:
    """The running services, by name. Every process ends with `with running(...)`."""

    def __init__(self, root: Path) -> None:
        """Lays out the containers' folders below a root and chooses ports and passwords."""
        self.root = root
        names = ("DAGSTER_PG_PORT", "DSSM_S3_PORT", "DSSM_CODE_SERVER_PORT", "DSSM_WEBSERVER_PORT", "DSSM_RECALL_PORT")
        ports = free_ports(len(names) + 3)
        self._inner_ports = ports[len(names) :]
        self.variables = {name: str(port) for name, port in zip(names, ports, strict=False)} | {
            "DAGSTER_PG_HOST": HOST,
            "DAGSTER_PG_PASSWORD": secrets.token_hex(8),
            "DSSM_CODE_SERVER_HOST": HOST,
            "AWS_ACCESS_KEY_ID": secrets.token_hex(8),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
            "AWS_ENDPOINT_URL": f"http://{HOST}:{ports[1]}",
            "DSSM_LOG_BUCKET": BUCKET,
        }
        for folder in CONTAINER_FOLDERS:
            (root / folder.strip("/")).mkdir(parents=True)
        for name in ("dagster.yaml", "workspace.yaml"):  # as the Dockerfile copies them
            shutil.copy(DEPLOY / "production" / name, root / "opt/dagster/home" / name)
        for path, content in config_files(self.variables).items():
            (root / path.strip("/")).write_text(content, encoding="utf-8")
        self.config_folder = root / "opt/dssm/config"
        self.described = services(self.variables, root)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.variables['DSSM_WEBSERVER_PORT']}"

    def start(self, name: str) -> float:
        """Starts a service; returns the seconds until its health check passed."""
        begin = time.perf_counter()
        self.launch(name)
        self.wait_until_healthy(name)
        if name == "object-store":
            self.make_bucket(BUCKET)
        return time.perf_counter() - begin

    def launch(self, name: str) -> None:
        """Starts a service, and does not wait for it."""
        service = self.described[name]
        if name == "postgres":
            self._make_database(service)
        log = (self.root / f"{name}.log").open("ab")
        self._processes[name] = subprocess.Popen(
            self._command(service),
            env=self._environment(service),
            cwd=self.root / "opt/dagster/home" if name != "postgres" else self.root,
            user=database_owner() if name == "postgres" else None,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    def make_bucket(self, bucket: str) -> None:
        """Does what the service `bucket` does: makes a bucket as the store's administrator, unless it exists."""
        master, _, filer = self._inner_ports
        command = [self._program("weed"), "shell", f"-master={HOST}:{master}", f"-filer={HOST}:{filer}"]
        made = subprocess.run(command, input=f"s3.bucket.create -name {bucket}\n", text=True, capture_output=True, check=False)
        assert made.returncode == 0 or "already exists" in made.stdout + made.stderr, made.stdout + made.stderr

    def wait_until_healthy(self, name: str, seconds: float = 120) -> None:
        """Waits for the health check of the file.

        Raises:
            AssertionError: the process ended, or did not become healthy in time; with the end of its log.
        """
        service, end = self.described[name], time.perf_counter() + seconds
        command = [self._program(service.health_check[0]), *service.health_check[1:]]
        environment = self._environment(service)
        fault, pause = "it does not listen", 0.3
        while True:
            assert self._processes[name].poll() is None, f"{name} ended:\n{self.log(name)}"
            if self._is_listening(name):
                begin = time.perf_counter()
                done = subprocess.run(command, env=environment, capture_output=True, cwd=self.root, check=False)
                if done.returncode == 0:
                    return
                fault, pause = done.stderr.decode()[-500:], max(pause, time.perf_counter() - begin)
            assert time.perf_counter() < end, f"{name} is not healthy: {fault}\n{self.log(name)}"
            time.sleep(pause)

    def _is_listening(self, name: str) -> bool:
        """Tells whether a service accepts connections, if it has a port of its own here."""
        if name not in _PORTS:
            return True
        with socket.socket() as probe:
            return probe.connect_ex((HOST, int(self.variables[_PORTS[name]]))) == 0

    def stop(self, name: str) -> None:
        """Stops a service as `docker compose stop` does: signals the main process, then kills the remaining ones."""
        process = self._processes[name]
        process.send_signal(_STOP_SIGNALS.get(name, signal.SIGTERM))
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        self.kill(name)

    def kill(self, name: str) -> None:
        """Kills a service with all its processes, as the end of its container does."""
        process = self._processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop_all(self) -> None:
        """Kills every remaining process."""
        for name in reversed(list(self._processes)):
            self.kill(name)

    def log(self, name: str, characters: int = 3000) -> str:
        """Returns the end of a service's output."""
        return (self.root / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-characters:]

    def memory_mb(self) -> dict[str, float]:
        """Returns the memory of each service in MB: proportional set size over its processes."""
        sizes = dict.fromkeys(self._processes, 0.0)
        sessions = {process.pid: name for name, process in self._processes.items()}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ProcessLookupError):
                name = sessions.get(os.getsid(int(folder.name)))
                if name is not None:
                    lines = (folder / "smaps_rollup").read_text().splitlines()
                    sizes[name] += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        return sizes

    def _command(self, service: Service) -> list[str]:
        program, *arguments = service.command
        if service.name == "postgres":
            return [
                str(postgres_folder() / program),
                *arguments,
                "-c",
                f"unix_socket_directories={Path(service.environment['PGDATA']).parent}",
                "-c",
                "fsync=off",  # no test cuts the power
            ]
        if service.name == "object-store":  # the image's entry point is the program `weed`
            inner = zip(("master", "volume", "filer"), self._inner_ports, strict=True)
            return [
                self._program("weed"),
                program,
                *arguments,
                f"-ip={HOST}",
                *(f"-{part}.port={port}" for part, port in inner),
                *(f"-s3.port.{part}=0" for part in ("iceberg", "lance")),  # else at ports of their own
            ]
        return [self._program(program), *arguments]

    def _program(self, name: str) -> str:
        if name == "pg_isready":
            return str(postgres_folder() / name)
        next_to_python = Path(sys.executable).parent / name
        return str(next_to_python) if next_to_python.exists() else find_program(name)

    def _environment(self, service: Service) -> dict[str, str]:
        ours = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(self.root), "LANG": "C.UTF-8"}
        ours["PYTHONPATH"] = str(DEPLOY.parent)  # the image has the package installed
        threads = {"OMP_NUM_THREADS": "1", "GOMAXPROCS": "1"}
        # Which kernels numpy multiplies with decides the last digits of a fit, and its tables are compared with local ones.
        kernels = {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")}
        return {**ours, **threads, **kernels, **service.environment}

    def _make_database(self, service: Service) -> None:
        """Does what the image's entry point does on an empty volume."""
        folder = Path(service.environment["PGDATA"])
        if folder.exists():
            return
        if (owner := database_owner()) is not None:
            shutil.chown(folder.parent, owner)
        password = self.root / "password"
        password.write_text(service.environment["POSTGRES_PASSWORD"], encoding="utf-8")
        user, database = service.environment["POSTGRES_USER"], service.environment["POSTGRES_DB"]
        binaries = postgres_folder()
        initdb = [str(binaries / "initdb"), "-D", str(folder), "-U", user, "--auth=scram-sha-256", f"--pwfile={password}"]
        self._as_owner([*initdb, "--encoding=UTF8", "--locale=C.UTF-8"])
        single = [str(binaries / "postgres"), "--single", "-D", str(folder), "postgres"]
        self._as_owner(single, f"CREATE DATABASE {database};\n".encode())

    def _as_owner(self, command: list[str], stdin: bytes = b"") -> None:
        subprocess.run(command, input=stdin, user=database_owner(), cwd=self.root, check=True, capture_output=True)


@contextmanager
def running(root: Path) -> Iterator[Services]:
    """Yields the services, none started; ends those that are running at the end."""
    root.chmod(0o755)  # the database's owner looks into it
    with ExitStack() as stack:
        made = Services(root)
        stack.callback(made.stop_all)
        yield made


@contextmanager
def object_store(*other_buckets: str) -> Iterator[dict[str, str]]:
    """Yields the options by which a running object store is reached."""
    with TemporaryDirectory(prefix="objects-of-tests-", ignore_cleanup_errors=True) as root, running(Path(root)) as services:
        services.start("object-store")
        for bucket in other_buckets:
            services.make_bucket(bucket)
        yield {
            "key": services.variables["AWS_ACCESS_KEY_ID"],
            "secret": services.variables["AWS_SECRET_ACCESS_KEY"],
            "endpoint_url": services.variables["AWS_ENDPOINT_URL"],
        }
    s3fs.S3FileSystem.clear_instance_cache()


def postgres_folder() -> Path:
    """Returns the folder of the newest PostgreSQL's programs: Debian's, which is not in PATH, or that of PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    folders = os.pathsep.join([*map(str, debian), os.environ["PATH"]])
    return Path(find_program("postgres", folders)).parent


def database_owner() -> int | None:
    """Returns the user to run PostgreSQL as, which refuses to run as root; None for the current one."""
    return pwd.getpwnam("postgres").pw_uid if os.getuid() == 0 else None


def free_ports(count: int) -> list[int]:
    """Returns free ports whose neighbours 10,000 above, which the object store uses too, are also free.

    All are below the ports that the system assigns to outgoing connections.
    """
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = 11_000 + secrets.randbelow(11_000)
            with suppress(OSError):
                for one in (port, port + 10_000):
                    stack.enter_context(socket.socket()).bind((HOST, one))
                ports.append(port)
        return ports
