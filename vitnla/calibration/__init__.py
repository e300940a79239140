"""Calibration: second moments of the input of every linear, from one pass over calibration images."""
