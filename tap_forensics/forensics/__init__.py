"""The forensics half of a run: backlog → evidence lines."""
