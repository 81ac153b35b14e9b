"""The configuration: frozen pydantic models, one file per part, composed by `pipeline`."""
