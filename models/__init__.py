"""One file a retrieval system; protocols.py holds the contract they share."""
