"""Exports OpenTelemetry spans of requests to the service (`serving.traces`)."""
