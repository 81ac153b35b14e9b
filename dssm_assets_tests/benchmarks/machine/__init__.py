"""The bench of a machine: the speed of each part of the library on generated data, next to the limits of the hardware."""
