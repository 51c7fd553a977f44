"""Collects Proofpoint TAP forensics into a Cloud Storage bucket. Start reading at `collect.py`."""

__version__ = "0.3.0"
