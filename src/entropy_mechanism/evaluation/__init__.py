"""Benchmark protocols and scores."""
