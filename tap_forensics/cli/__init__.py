"""The operator's command line. One module a command; nothing of it is deployed with the function."""
