"""Requests that would stop the service: too large, too deep, too many, too slow. Raw sockets against a real process."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from pathlib import Path

import pytest

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets_tests.service.http.servers import SLOW_USER, served_by_process

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /recall HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SLOW = f"GET /recall?user_id={SLOW_USER} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
PATIENCE = 60
"""Seconds after which a test fails that waits for something: the machine may be busy."""


def limit_arguments(**limits):
    return [part for key, value in limits.items() for part in ("--limit", f"{key}={value}")]


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
    """Returns status, headers and parsed body of one answer."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65536)
        assert part, "the connection closed without an answer"
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
    """Returns status, error and (where, expected) of each fault."""
    status, _, content = answer
    assert all(set(fault) == {"where", "expected", "got", "remedy"} for fault in content["faults"])
    return status, content["error"], [(fault["where"], fault["expected"]) for fault in content["faults"]]


@pytest.mark.parametrize(
    ("body", "where", "expected"),
    [
        (b'{"exclude": [' + b"[]," * 200_000 + b"[]]}", "body.exclude", "at most 10000 items"),
        (b'{"exclude": [' + b"1," * 10_000 + b"1]}", "body.exclude", "at most 10000 items"),
        (b'{"features": {"city": "' + b"x" * 10_001 + b'"}}', "body.features.city", "at most 10000 entries or characters"),
        (b'{"history": {"item_ids": [' + b"1," * 10_000 + b"1]}}", "body.history.item_ids", "at most 10000 entries"),
        (b'{"features": {"city": ' + b"[" * 300 + b"]" * 300 + b"}}", "body", "valid JSON: recursion limit"),
        (b'{"user_id": "u", "filters": [' + b"[" * 300 + b"]" * 300 + b"]}", "body", "valid JSON: recursion limit"),
        (b'{"user_id": "u", "filters": [' + b'{"a": 1},' * 64 + b'{"a": 1}]}', "filters", "at most 64 conditions"),
        (b'{"user_id": "u", "filters": {"a": [' + b"1," * 10_000 + b"1]}}", "filters", "at most 10000 values"),
        (b"[" * 40_000, "body", "valid JSON"),
        (b'{"k": 1' + b"0" * 5000 + b"}", "body", "valid JSON"),
        (b'{"user_id": "\xff"}', "body", "valid JSON"),
        (b'{"features": {"\\ud800": 1}}', "body", "valid JSON"),
        (b'{"features": {' + b",".join(b'"%d": 0' % n for n in range(1001)) + b"}}", "body.features", "at most 1000 items"),
    ],
)  # fmt: skip
def test_bodies_beyond_a_limit_are_refused(port, body, where, expected):
    status, error, ((found, said),) = refusal(post(port, body))
    assert (status, error, found) == (400, "InputError", where)
    assert expected in said


def test_lists_as_long_as_allowed_are_answered(port):
    body = {
        "features": {"city": "x" * 10_000, "tags": ["p:1"] * 1000},
        "history": {"item_ids": ["n0"] * 10_000},
        "exclude": ["n1"] * 10_000,
        "k": 1,
    }
    assert post(port, json.dumps(body).encode())[0] == 200


def test_large_bodies_are_refused_with_and_without_their_length_while_health_answers(port):
    text = b'{"features": {"city": "' + b"x" * 50_000_000 + b'"}}'
    expected = (413, "BodyTooLargeError", [("body", "at most 1048576 bytes")])
    with connected(port) as others:
        assert refusal(post(port, text)) == expected
        chunk = b"%x\r\n%s\r\n" % (1_000_000, text[:1_000_000])
        assert refusal(exchange(port, POST + b"Transfer-Encoding: chunked\r\n\r\n", *([chunk] * 3), b"0\r\n\r\n")) == expected
        start = time.monotonic()
        others.sendall(HEALTH)
        assert read_answer(others)[0] == 200
        assert time.monotonic() - start < 5


def test_at_most_twenty_faults_are_reported(port):
    for body, left_out in (
        ({f"key{number}": 1 for number in range(30)}, 10),
        ({"user_id": "u", "exclude": [None] * 10_000}, 9_980),
    ):
        status, _, content = post(port, json.dumps(body).encode())
        assert (status, len(content["faults"]), content["faults_left_out"]) == (400, 20, left_out)


def test_faults_are_described_only_as_far_as_an_answer_shows_them(port):
    body = json.dumps({f"{number:x}": 1 for number in range(50_000)}).encode()
    assert refusal(post(port, body)) == (400, "InputError", [("body", "at most 20000 faults in all")])
    # 40 requests have 500 faults each, those after them one.
    requests = json.dumps({"requests": [{"fields": [1] * 500}] * 41}).encode()
    head = POST.replace(b"/recall", b"/recall/batch") + b"Content-Length: %d\r\n\r\n" % len(requests)
    answers = exchange(port, head, requests)[2]["answers"]
    assert [one.get("faults_left_out") for one in answers] == [480] * 40 + [None]
    assert answers[40]["faults"][0]["got"] == "500 here"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/recall", 405)])
def test_other_refusals_have_the_same_form(port, method, path, status):
    answer = exchange(port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert refusal(answer)[:2] == (status, "InputError")
    assert answer[1]["content-type"] == "application/json"


def test_requests_at_once_and_their_time_are_limited(root):
    limits = limit_arguments(max_requests=2, request_seconds=2)
    with served_by_process(root, "--threads", "4", *limits) as (_, port), connected(port) as first, connected(port) as second:
        first.sendall(SLOW)
        second.sendall(SLOW)
        answers = [read_answer(first), read_answer(second), exchange(port, SLOW)]
        assert exchange(port, HEALTH)[0] == 200
    assert [refusal(answer)[:2] for answer in answers] == [(503, "BusyError")] * 3
    expected = ["a list in 2 seconds"] * 2 + ["fewer than 2 requests at once"]
    assert [refusal(answer)[2][0][1] for answer in answers] == expected
    assert {answer[1]["retry-after"] for answer in answers} == {"1"}


def test_batches_at_once_and_the_time_of_a_body_are_limited(root):
    body = json.dumps({"requests": [{"user_id": SLOW_USER, "k": 10_000}] * 25}).encode()
    batch = POST.replace(b"/recall", b"/recall/batch") + b"Content-Length: %d\r\n\r\n" % len(body) + body
    limits = limit_arguments(request_seconds=2)
    with served_by_process(root, "--threads", "1", *limits) as (_, port), connected(port) as first, connected(port) as half:
        half.sendall(POST + b"Content-Length: 20\r\n\r\n{")
        first.sendall(batch)
        while (answer := exchange(port, batch))[2]["faults"][0]["expected"] != "at most 250000 items of batches at once":
            time.sleep(0.01)
        answers = [answer, read_answer(first), read_answer(half)]
    assert [refusal(answer)[:2] for answer in answers] == [(503, "BusyError")] * 3
    assert [refusal(answer)[2][0][1] for answer in answers[1:]] == ["a list in 2 seconds", "a whole body in 2 seconds"]


def test_a_second_interrupt_ends_the_service_at_once(root):
    with served_by_process(root) as (process, port), connected(port) as half:
        half.sendall(POST + b"Content-Length: 20\r\n\r\n{")
        assert exchange(port, HEALTH)[0] == 200
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        assert process.wait(PATIENCE / 3) == -signal.SIGINT, "by the signal, without a traceback of Python"


def test_shutdown_ends_in_its_time_whatever_clients_do(root):
    with contextlib.ExitStack() as stack:
        process, port = stack.enter_context(served_by_process(root, *limit_arguments(shutdown_seconds=1, request_seconds=50)))
        slow, half, idle = (stack.enter_context(connected(port)) for _ in range(3))
        slow.sendall(SLOW)
        half.sendall(POST + b"Content-Length: 20\r\n\r\n{")
        idle.sendall(HEALTH)
        assert read_answer(idle)[0] == 200
        process.send_signal(signal.SIGTERM)
        answers = [read_answer(slow), read_answer(half)]
        assert process.wait(PATIENCE / 3) in (0, -signal.SIGTERM)
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
    assert "--limit max_request: expected no such key, got '1'" in text
    assert "--limit max_requests: expected greater than or equal to 1, got '0'" in text


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        *(("--threads", value, "a number from 1 to 1024") for value in ("0", "-1", "1025")),
        *(("--port", value, "a number from 0 to 65535") for value in ("-1", "70000")),
        *(("--check-seconds", value, "a number from 0.01 to 86400") for value in ("0", "-1", "inf", "nan", "1e300")),
        *(("--host", value, "an address of this machine") for value in ("999.1.1.1", "a" * 300, "a\0b")),
    ],
)
def test_arguments_that_cannot_be_are_refused(capsys, argument, value, said):
    from dssm_assets.cli import main

    assert main(["serve", "--bundle", "nowhere", f"{argument}={value}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"InputError: {argument}") and f"expected {said}, got" in error


def test_deployment_page_has_every_limit_with_its_default():
    page = (Path(__file__).parents[3] / "docs" / "deployment.md").read_text(encoding="utf-8")
    section = page.partition("## The recall service")[2].partition("\n## ")[0]
    shown = {1 << 20: "1 MiB"}
    for name, value in ServiceLimits().model_dump().items():
        assert f"`{name}`" in section, name
        (line,) = [line for line in section.splitlines() if line.startswith("| ") and f"`{name}`" in line]
        assert shown.get(value, f"{value:,g}") in line.replace("10,000 items", ""), name
