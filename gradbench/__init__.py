"""Benchmarks of gradient-based uncertainty for image classifiers."""

__version__ = "0.1.0"
