"""Benchmarks: side-by-side tables of this package and its peers, measured in one run."""
