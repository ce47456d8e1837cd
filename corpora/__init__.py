"""Corpus folders as records and arrays."""
