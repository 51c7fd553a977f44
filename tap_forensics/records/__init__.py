"""Report and event bytes → lines. Pure functions."""
