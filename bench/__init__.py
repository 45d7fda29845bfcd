"""Benchmarks: ours and a peer's in one run, printed as ratios."""
