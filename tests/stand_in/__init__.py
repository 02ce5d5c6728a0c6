"""Stand-ins for a CUDA card and for Apple's MPS, which run anywhere, with a CPU's numbers."""
