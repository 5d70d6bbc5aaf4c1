"""Which bases, sites, heads and graph neighbours a prediction rests on, each with its checks."""
