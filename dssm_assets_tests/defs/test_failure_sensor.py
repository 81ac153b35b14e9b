"""The failure sensor: which failed runs it reports, what it posts, and that a broken webhook breaks nothing."""

import http.server
import json
import threading

import dagster as dg
import pytest

from dssm_assets.definitions import build_definitions
from dssm_assets.defs.failure_sensor import WEBHOOK_VARIABLE, post_json
from dssm_assets.defs.scene import MADE_FOR_TAG
from dssm_assets_tests import worlds

SENSOR = "failure_sensor"


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted to it and answers with the server's `answer`."""

    def do_POST(self):
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_):
        """Keeps the test output clean."""


@pytest.fixture
def receiver():
    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    server.received, server.answer = [], 200
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.address = f"http://127.0.0.1:{server.server_port}/hook?token=secret"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def failed_run(loaded, instance, **tags):
    """Runs a day whose sources are missing; returns the sensor, the context of the failure, and the run."""
    defs = build_definitions(loaded)
    job = defs.resolve_job_def("daily_tables")
    result = job.execute_in_process(instance=instance, partition_key="2024-01-04", raise_on_error=False, tags=tags)
    assert not result.success
    event = result.get_run_failure_event()
    context = dg.build_run_status_sensor_context(SENSOR, event, instance, result.dagster_run, partition_key="2024-01-04")
    return defs.resolve_sensor_def(SENSOR), context.for_run_failure(), result.dagster_run


def test_failed_run_is_posted_with_day_step_and_error(tmp_path, receiver, monkeypatch):
    monkeypatch.delenv(WEBHOOK_VARIABLE, raising=False)
    loaded = worlds.write_config(tmp_path, {"platform": {"webhook_url": receiver.address}})
    with dg.DagsterInstance.ephemeral() as instance:
        sensor, context, run = failed_run(loaded, instance)
        assert sensor(context) is None
    (message,) = receiver.received
    assert (message["scene"], message["job"], message["run_id"], message["partition"]) == (
        "tiny",
        "daily_tables",
        run.run_id,
        "2024-01-04",
    )
    assert message["step"] in {"user_table", "item_table", "behavior_table"}
    assert "expected a file or folder, got no such file or folder" in message["error"]
    assert message["text"].startswith(f"tiny: daily_tables of 2024-01-04 failed in {message['step']}: ")


def test_a_run_that_was_made_for_another_is_reported_by_that_one_alone(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv(WEBHOOK_VARIABLE, receiver.address)
    with dg.DagsterInstance.ephemeral() as instance:
        sensor, context, _ = failed_run(worlds.write_config(tmp_path), instance, **{MADE_FOR_TAG: "1a2b3c4d"})
        assert "made for another run" in sensor(context).skip_message
    assert not receiver.received


def test_webhook_of_the_environment_overrides_the_configured_one_and_may_fail(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv(WEBHOOK_VARIABLE, receiver.address)
    loaded = worlds.write_config(tmp_path, {"platform": {"webhook_url": "http://127.0.0.1:9/unused"}})
    with dg.DagsterInstance.ephemeral() as instance:
        sensor, context, _ = failed_run(loaded, instance)
        receiver.answer = 500
        assert sensor(context) is None
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9/hook?token=secret",
        "file:///etc/hostname?secret",
        "http://127.0.0.1:secret/hook",
        "http://127.0.0.1/services/T0/secret with a space",
        "http://[secret/hook",
        "http://secret\x00.example/hook",
        "http://127.0.0.1/secr\u00e9t-secret",
    ],
)
def test_webhook_problem_never_shows_the_address(address):
    problem = post_json(address, {"text": "x"})
    assert problem
    assert "secret" not in problem


def test_runs_of_other_jobs_are_skipped(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv(WEBHOOK_VARIABLE, receiver.address)

    @dg.op
    def broken():
        raise ValueError("theirs")

    @dg.job
    def their_job():
        broken()

    sensor = build_definitions(worlds.write_config(tmp_path)).resolve_sensor_def(SENSOR)
    with dg.DagsterInstance.ephemeral() as instance:
        result = their_job.execute_in_process(instance=instance, raise_on_error=False)
        context = dg.build_run_status_sensor_context(SENSOR, result.get_run_failure_event(), instance, result.dagster_run)
        found = sensor(context.for_run_failure())
    assert "is not a run of tiny" in found.skip_message
    assert receiver.received == []


def test_sensor_is_on_if_runs_start_automatically_or_a_webhook_is_set(tmp_path, monkeypatch):
    monkeypatch.delenv(WEBHOOK_VARIABLE, raising=False)

    def status(**platform):
        loaded = worlds.write_config(tmp_path, {"platform": platform} if platform else None)
        return build_definitions(loaded).resolve_sensor_def(SENSOR).default_status

    assert status() is dg.DefaultSensorStatus.STOPPED
    assert status(trigger="schedule") is dg.DefaultSensorStatus.RUNNING
    assert status(webhook_url="https://chat.example/hook") is dg.DefaultSensorStatus.RUNNING
