"""Trial lists, scoring, back-ends, metrics and calibration of verification."""
