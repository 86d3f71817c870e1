"""Benchmarks of accuracy, speed and memory. Their results are committed; tests do not run them."""
