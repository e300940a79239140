"""One pass over calibration images: the second moments of what every linear sees."""
