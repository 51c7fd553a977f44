"""The operator's command line. Not deployed with the function."""
