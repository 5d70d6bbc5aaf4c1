"""The network, from tokens to predictions; it knows nothing of files."""
