"""`python -m tap_forensics`: the command line."""

from tap_forensics.cli.main import main

if __name__ == "__main__":
    main(prog_name="tap-forensics")
