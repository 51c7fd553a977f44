"""The SIEM half of a run: windows → backlog and event lines."""
