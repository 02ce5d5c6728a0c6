"""Checks on Apple's MPS, which has no float64: they run on a Mac, and on a stand-in elsewhere."""
