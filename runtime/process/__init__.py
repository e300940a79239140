"""Measured processes: the driver's side, the worker's side, affinity and memory."""
