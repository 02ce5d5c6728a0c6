"""A stand-in for a CUDA card, so that what needs one runs on any machine, with a CPU's numbers."""
