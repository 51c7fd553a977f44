"""The TAP API over HTTP: one request, its retries, its limits."""
