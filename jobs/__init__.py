"""The experiments and tools: one file each, started from the command line."""
