"""OpenTelemetry spans of the requests to a service: `serving.traces`. Deleting this folder takes them away."""
