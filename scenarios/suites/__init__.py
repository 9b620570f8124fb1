"""Suites of the bench, one file each."""
