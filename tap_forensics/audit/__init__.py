"""Compares what TAP shows of a past interval with the lines in the bucket. Not deployed."""
