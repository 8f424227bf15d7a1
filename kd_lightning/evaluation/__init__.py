"""What is measured of a finished run: scores, calibration, corruptions, latency; and the pictures of it."""
