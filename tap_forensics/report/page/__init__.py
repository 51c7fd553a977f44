"""The page that `tap-forensics report` makes, and the indicators as CSV and STIX."""
