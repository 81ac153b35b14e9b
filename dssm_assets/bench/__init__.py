"""What this machine does: the speed of each part of the library beside the machine's own limits, on generated data."""
