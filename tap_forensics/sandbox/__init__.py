"""A local world: a strict stand-in for the TAP API, a real GCS server, and the function using both.

Nothing here imports the client code: a fake that reuses the client's constants repeats its mistakes.
"""
