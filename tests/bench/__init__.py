"""The benchmark: ours beside a plain loop and beside the floor, on the stand-in. `python -m tests.bench`."""
