"""Metrics, the bootstrap, exact bounds and comparisons: how far measured numbers can be trusted."""
