"""What tests of the service share."""

import subprocess
from contextlib import closing

import pytest

from dssm_assets_tests.service.bundles import write_bundle
from dssm_assets_tests.service.http.servers import Client


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Returns the folder of the hand-written bundle, which is named by its id; no test changes it."""
    return write_bundle(tmp_path_factory.mktemp("serving"))


@pytest.fixture(scope="session")
def root(folder):
    return str(folder.parent.parent)


@pytest.fixture
def client(port):
    """Returns a client of the server that a module has at `port`."""
    with closing(Client(port)) as client:
        yield client


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    pem, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(
        [*command, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", pem], check=True, capture_output=True
    )
    return pem, key
