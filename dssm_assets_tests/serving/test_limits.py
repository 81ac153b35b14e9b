"""Requests that would stop the service: too large, too deep, too many, too slow. Raw sockets against a real process."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets_tests.serving import bundles
from dssm_assets_tests.serving.servers import SLOW_USER, Client, served_by_process

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /recall HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SMALL = {
    "max_connections": 100,
    "max_requests": 2,
    "retry_after_seconds": 7,
    "transfer_seconds": 2,
    "request_seconds": 3,
    "shutdown_seconds": 3,
    "max_head_bytes": 2000,
}
PATIENCE = 60
"""Seconds after which a test fails that waits for something: the machine may be busy."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = bundles.write_bundle(tmp_path_factory.mktemp("serving"))
    return str(folder.parent.parent)


def limit_arguments(**limits):
    return [part for key, value in limits.items() for part in ("--limit", f"{key}={value}")]


@pytest.fixture(scope="module")
def small_port(root):
    """A server whose limits of time and number are small."""
    with served_by_process(root, "--threads", "4", *limit_arguments(**SMALL)) as (_, port):
        yield port


@pytest.fixture(scope="module")
def port(root):
    """A server with the default limits."""
    with served_by_process(root) as (_, port):
        yield port


@contextlib.contextmanager
def connected(port):
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        yield connection


def read_answer(connection):
    """Returns status, headers and parsed body of one answer, or None for a connection that closed without one."""
    received = b""
    while b"\r\n\r\n" not in received:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            part = b""
        if not part:
            return None
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return int(lines[0].split()[1]), headers, json.loads(body)


def exchange(port, *parts):
    with connected(port) as connection:
        for part in parts:
            connection.sendall(part)
        return read_answer(connection)


def post(port, body):
    return exchange(port, POST + b"Content-Length: %d\r\n\r\n" % len(body), body)


def refusal(answer):
    """Returns status, error and (place, expected) of each fault."""
    status, _, content = answer
    assert all(set(fault) == {"where", "expected", "got", "remedy"} for fault in content["faults"])
    return status, content["error"], [(fault["where"], fault["expected"]) for fault in content["faults"]]


def test_million_empty_lists_are_refused_while_health_answers(port):
    body = b'{"exclude": [' + b"[]," * 999_999 + b"[]]}"
    with connected(port) as others:
        others.sendall(HEALTH)
        assert read_answer(others)[0] == 200
        assert refusal(post(port, body)) == (413, "BodyTooLargeError", [("body", "at most 1048576 bytes")])
        assert len(json.dumps(post(port, body)[2])) < 1000
        with connected(port) as sending:
            sending.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            start = time.monotonic()
            others.sendall(HEALTH)
            assert read_answer(others)[0] == 200
            assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("body", "place", "expected"),
    [
        (b'{"exclude": [' + b"[]," * 200_000 + b"[]]}", "body", "at most 50000 values"),
        (b'{"exclude": [' + b"1," * 10_000 + b"1]}", "body.exclude", "at most 10000 entries"),
        (b'{"features": {"city": "' + b"x" * 10_001 + b'"}}', "body.features.city", "at most 10000 characters"),
        (b'{"features": {"tags": [' + b"1," * 1000 + b"1]}}", "body.features.tags", "at most 1000 entries"),
        (b'{"features": {"tags": {"a": ["' + b"x" * 10_001 + b'"]}}}', "body.features.tags.a.0", "at most 10000 characters"),
        (b'{"history": {"item_ids": [' + b"1," * 5000 + b"1]}}", "body.history.item_ids", "at most 5000 entries"),
        (b'{"features": {"city": ' + b"[" * 300 + b"]" * 300 + b"}}", "body.features.city." + ".".join("0" * 14), "at most 16 lists and objects within one another"),
        (b"[" * 40_000, "body", "JSON in UTF-8"),
        (b'{"k": 1' + b"0" * 5000 + b"}", "body", "JSON in UTF-8"),
        (b'{"user_id": "\xff"}', "body.13", "JSON in UTF-8"),
        (b'{"features": {"\\ud800": 1}}', "a name in body.features", "text"),
        (b"{" + b",".join(b'"%d": 0' % number for number in range(1001)) + b"}", "body", "at most 1000 entries"),
    ],
)  # fmt: skip
def test_bodies_beyond_a_limit_are_refused(port, body, place, expected):
    assert refusal(post(port, body)) == (400, "InputError", [(place, expected)])


def test_lists_as_long_as_allowed_are_answered(port):
    body = {
        "features": {"city": "x" * 10_000, "tags": ["p:1"] * 1000},
        "history": {"item_ids": ["n0"] * 5000},
        "exclude": ["n1"] * 10_000,
        "k": 1,
    }
    assert post(port, json.dumps(body).encode())[0] == 200


def test_text_of_50_mb_is_refused_with_and_without_its_length(port):
    text = b'{"features": {"city": "' + b"x" * 50_000_000 + b'"}}'
    expected = (413, "BodyTooLargeError", [("body", "at most 1048576 bytes")])
    assert refusal(post(port, text)) == expected
    chunk = b"%x\r\n%s\r\n" % (1_000_000, text[:1_000_000])
    assert refusal(exchange(port, POST + b"Transfer-Encoding: chunked\r\n\r\n", *([chunk] * 3), b"0\r\n\r\n")) == expected


@pytest.mark.parametrize(("path", "status"), [("/recall", 413), ("/nowhere", 404), ("/health", 405)])
def test_endless_chunked_body_is_refused_and_its_connection_closed(port, path, status):
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    limit = time.monotonic() + PATIENCE
    with connected(port) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(20):
            with contextlib.suppress(ConnectionError):
                connection.sendall(chunk)
        if status == 413:
            assert refusal(read_answer(connection))[0] == status
        with pytest.raises(ConnectionError):
            while time.monotonic() < limit:
                connection.sendall(chunk)


def test_at_most_twenty_faults_are_reported(port):
    status, _, content = post(port, json.dumps({f"key{number}": 1 for number in range(30)}).encode())
    assert (status, len(content["faults"]), content["faults_left_out"]) == (400, 20, 10)
    status, _, content = post(port, json.dumps({"user_id": "u", "exclude": [None] * 10_000}).encode())
    assert (status, len(content["faults"]), content["faults_left_out"]) == (400, 20, 80)
    status, _, content = post(port, json.dumps({"features": {str(number): ["x" * 10_001] for number in range(50)}}).encode())
    assert (status, len(content["faults"]), content["faults_left_out"]) == (400, 20, 1)


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        (b"GET /recall?user_id=" + b"u" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "HeadTooLargeError"),
        (b"GET /health HTTP/1.1\r\nX: " + b"x" * 300_000, 431, "HeadTooLargeError"),
        (b"NONSENSE\r\n\r\n", 400, "RefusedError"),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404, "InputError"),
        (b"DELETE /recall HTTP/1.1\r\nHost: x\r\n\r\n", 405, "InputError"),
    ],
)
def test_other_refusals_have_the_same_form(small_port, request_, status, error):
    head, rest = request_[:1000], request_[1000:]
    with connected(small_port) as connection:
        connection.sendall(head)
        time.sleep(0.05)
        with contextlib.suppress(ConnectionError):
            connection.sendall(rest)
        answer = read_answer(connection)
    assert refusal(answer)[:2] == (status, error)
    assert answer[1]["content-type"] == "application/json"


def test_300_half_sent_requests_keep_nobody_out_and_are_closed(small_port):
    halves = (b"", b"GET /recall?user_id=u HT", POST + b'Content-Length: 20\r\n\r\n{"user_')
    with contextlib.ExitStack() as stack:
        for number in range(300):
            stack.enter_context(connected(small_port)).sendall(halves[number % 3])
            if number % 50 == 49:
                assert exchange(small_port, HEALTH)[0] == 200
                assert exchange(small_port, b"GET /recall?user_id=u HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200
    with contextlib.ExitStack() as stack:
        late = [stack.enter_context(connected(small_port)) for _ in halves]
        for connection, half in zip(late, halves, strict=True):
            connection.sendall(half)
        answers = [read_answer(connection) for connection in late]
    assert answers[0] is None
    assert refusal(answers[1]) == (408, "SlowRequestError", [("head of the request", "all of it in 2 seconds")])
    assert refusal(answers[2]) == (408, "SlowRequestError", [("body", "all of it in 2 seconds")])


def test_head_sent_byte_by_byte_is_refused_in_time(small_port):
    with connected(small_port) as connection:
        for whole in (HEALTH, HEALTH, b"GET /health HTTP/1.1\r\nX: "):  # the clock of each request starts with its first byte
            connection.sendall(whole)
            if whole == HEALTH:
                assert read_answer(connection)[0] == 200
        start = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - start < PATIENCE:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - start > 1


def test_client_that_reads_no_answer_is_cut_off(small_port):
    features = {f"{number}{'x' * 900}": 1 for number in range(900)}  # Names that no feature reads are repeated in the answer.
    body = json.dumps({"features": {"city": "x", **features}}).encode()
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with connected(small_port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                connection.sendall(request)
    assert count_closed(small_port, "slow_reader") == 1


def count_closed(port, reason):
    client = Client(port)
    text = client.get("/metrics")[1]
    client.close()
    found = re.search(rf'dssm_connections_closed_total{{reason="{reason}"}} (\d+)', text)
    return int(found.group(1)) if found else 0


def test_requests_at_once_and_their_time_are_limited(small_port):
    slow = f"GET /recall?user_id={SLOW_USER} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with connected(small_port) as first, connected(small_port) as second:
        first.sendall(slow)
        second.sendall(slow)
        answers = [read_answer(first), read_answer(second)]
        answers.append(exchange(small_port, slow))
        assert exchange(small_port, HEALTH)[0] == 200
    assert [refusal(answer)[:2] for answer in answers] == [(503, "BusyError")] * 3
    assert [refusal(answer)[2][0][1] for answer in answers] == ["a list in 3 seconds"] * 2 + ["at most 2 requests at once"]
    assert {answer[1]["retry-after"] for answer in answers} == {"7"}


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_shutdown_ends_in_its_time_whatever_clients_do(root, sent):
    with contextlib.ExitStack() as stack:
        process, port = stack.enter_context(served_by_process(root, *limit_arguments(shutdown_seconds=1, request_seconds=50)))
        slow, half, idle = (stack.enter_context(connected(port)) for _ in range(3))
        slow.sendall(f"GET /recall?user_id={SLOW_USER} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        half.sendall(POST + b"Content-Length: 20\r\n\r\n{")
        idle.sendall(HEALTH)
        assert read_answer(idle)[0] == 200
        process.send_signal(sent)
        answers = [read_answer(slow), read_answer(half)]
        assert process.wait(PATIENCE / 3) in (0, -sent)
    assert [refusal(answer)[:2] for answer in answers] == [(503, "BusyError")] * 2


def test_limits_come_from_the_command_line_and_wrong_ones_are_refused(capsys):
    from dssm_assets.cli import main

    assert main(["serve", "--bundle", "nowhere", "--limit", "max_requests=0", "--limit", "max_request=1", "--limit", "k"]) == 1
    text = capsys.readouterr().err
    assert [line.partition(": expected")[0] for line in text.splitlines()[1:]] == [
        "--limit k",
        "--limit max_request",
        "--limit max_requests",
    ]


def test_operations_page_has_every_limit_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page.partition("## The recall service")[2].partition("\n## ")[0]
    shown = {1 << 16: "64 KiB", 1 << 20: "1 MiB"}
    for name, value in ServiceLimits().model_dump().items():
        assert f"`{name}`" in section, name
        (line,) = [line for line in section.splitlines() if line.startswith("| ") and f"`{name}`" in line]
        assert shown.get(value, f"{value:,g}") in line.replace("10,000 items", ""), name
