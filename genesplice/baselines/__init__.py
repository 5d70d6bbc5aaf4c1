"""Simple methods that every model is compared with."""
