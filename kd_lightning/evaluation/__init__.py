"""Finished runs, opened and used: scores, calibration, corruptions, latency, verification, predictions."""
