"""Tangent kernels of networks without their m x P gradients: hooks, closed forms, fallbacks."""
