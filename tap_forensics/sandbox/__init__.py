"""A local world: a strict stand-in for the TAP API, a real GCS server, and the function run against both.

Nothing here imports the collector: a fake that borrows the client's constants shares the client's mistakes.
"""
