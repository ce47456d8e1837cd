"""Reads ranking files and says where a model fails; imports no torch."""
