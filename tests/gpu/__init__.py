"""Checks of the package's guarantees on one CUDA device; on a CPU, the same at small sizes."""
