"""Raw downloads to corpus folders."""
