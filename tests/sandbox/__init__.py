"""The stand-in is tested like anything that others rely on."""
