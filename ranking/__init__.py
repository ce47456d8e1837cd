"""Ranking files, metrics and the engine that fills every score matrix."""
