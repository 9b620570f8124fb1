"""Forecasters that fit themselves once to the first part of a stream: ``ridge@3437:4308``."""
