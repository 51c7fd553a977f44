"""Threat summaries: a line for each threat that was seen, whether or not it has forensics."""
