"""Adversarial attacks on f, one file each; budgets are in [0, 1] pixels."""
