"""A measurement of a network on a probe: planned, taken, and agreed on by all processes."""
