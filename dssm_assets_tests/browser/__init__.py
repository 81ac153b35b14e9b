"""The UI as a user has it: a real webserver and daemon, and a headless Chromium that clicks."""
