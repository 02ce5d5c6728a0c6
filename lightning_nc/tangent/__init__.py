"""Tangent kernels without the m x P gradient matrix: hooks, closed forms and fallbacks."""
