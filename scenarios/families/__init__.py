"""Families of concepts: functions of a seed and a number of rows that give a drifting stream."""
