"""The training loop and its parts; knows no model and no corpus."""
