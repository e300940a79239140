"""Schemas of stored results, and the statistics of measurements."""
