"""Streams with known drifts, suites, and the bench that proves what the model is worth."""
