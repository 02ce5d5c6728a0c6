"""What the package promises, asked of one CUDA device; on a CPU the same at small sizes."""
