"""The machine: resources, options, submission, process group; knows no model."""
