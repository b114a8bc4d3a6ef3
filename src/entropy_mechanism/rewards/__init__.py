"""Graders: from a response to an outcome."""
