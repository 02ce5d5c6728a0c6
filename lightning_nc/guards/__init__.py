"""Guards that restore what a measurement changes, so that a network is left as it was."""
