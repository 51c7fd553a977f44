"""What a SecOps instance does with our lines, asked with Google's client. Never part of the function."""
