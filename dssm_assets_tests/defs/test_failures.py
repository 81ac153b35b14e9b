"""Failed runs are told: in the log, and to a webhook that may do what it likes."""

import http.server
import json
import threading

import dagster as dg
import pytest

from dssm_assets.definitions import build_definitions
from dssm_assets.defs.failures import WEBHOOK_VARIABLE, post
from dssm_assets_tests import worlds

NAME = "failure_sensor"


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted to it, and answers as it was told to."""

    def do_POST(self):
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_):
        """Prints nothing."""


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


def failed_run(loaded, instance):
    """Runs a day whose sources are missing; returns the context that its failure is told in."""
    defs = build_definitions(loaded)
    job = defs.resolve_job_def("daily_tables")
    result = job.execute_in_process(instance=instance, partition_key="2024-01-04", raise_on_error=False)
    assert not result.success
    event = result.get_run_failure_event()
    context = dg.build_run_status_sensor_context(NAME, event, instance, result.dagster_run, partition_key="2024-01-04")
    return defs.resolve_sensor_def(NAME), context.for_run_failure(), result.dagster_run


def test_a_failed_run_is_posted_with_its_day_step_and_error(tmp_path, receiver, monkeypatch):
    monkeypatch.delenv(WEBHOOK_VARIABLE, raising=False)
    loaded = worlds.write_config(tmp_path, {"platform": {"webhook_url": receiver.address}})
    with dg.DagsterInstance.ephemeral() as instance:
        sensor, context, run = failed_run(loaded, instance)
        assert sensor(context) is None
    (told,) = receiver.received
    assert (told["scene"], told["job"], told["run_id"], told["partition"]) == ("tiny", "daily_tables", run.run_id, "2024-01-04")
    assert told["step"] in {"user_table", "item_table", "behavior_table"}
    assert "expected a file or folder, got no such file or folder" in told["error"]
    assert told["text"].startswith(f"tiny: daily_tables of 2024-01-04 failed in {told['step']}: ")


def test_the_environment_wins_over_the_configuration(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv(WEBHOOK_VARIABLE, receiver.address)
    loaded = worlds.write_config(tmp_path, {"platform": {"webhook_url": "http://127.0.0.1:9/nobody"}})
    with dg.DagsterInstance.ephemeral() as instance:
        sensor, context, _ = failed_run(loaded, instance)
        sensor(context)
    assert len(receiver.received) == 1


def test_a_webhook_that_fails_fails_nothing(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv(WEBHOOK_VARIABLE, receiver.address)
    receiver.answer = 500
    with dg.DagsterInstance.ephemeral() as instance:
        sensor, context, _ = failed_run(worlds.write_config(tmp_path), instance)
        assert sensor(context) is None


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/hook?token=secret", "file:///etc/hostname?secret", "nonsense secret"])
def test_what_goes_wrong_is_said_without_the_address(address):
    problem = post(address, {"text": "x"})
    assert problem
    assert "secret" not in problem


def test_runs_of_others_are_left_to_others(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv(WEBHOOK_VARIABLE, receiver.address)

    @dg.op
    def broken():
        raise ValueError("theirs")

    @dg.job
    def their_job():
        broken()

    sensor = build_definitions(worlds.write_config(tmp_path)).resolve_sensor_def(NAME)
    with dg.DagsterInstance.ephemeral() as instance:
        result = their_job.execute_in_process(instance=instance, raise_on_error=False)
        context = dg.build_run_status_sensor_context(NAME, result.get_run_failure_event(), instance, result.dagster_run)
        found = sensor(context.for_run_failure())
    assert "is not one of tiny" in found.skip_message
    assert receiver.received == []


def test_it_is_on_where_it_has_someone_to_tell_or_runs_start_by_themselves(tmp_path, monkeypatch):
    monkeypatch.delenv(WEBHOOK_VARIABLE, raising=False)

    def status(**platform):
        loaded = worlds.write_config(tmp_path, {"platform": platform} if platform else None)
        return build_definitions(loaded).resolve_sensor_def(NAME).default_status

    assert status() is dg.DefaultSensorStatus.STOPPED
    assert status(trigger="schedule") is dg.DefaultSensorStatus.RUNNING
    assert status(webhook_url="https://chat.example/hook") is dg.DefaultSensorStatus.RUNNING
