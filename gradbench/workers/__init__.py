"""Processes on the devices of one machine that train and extract together."""
