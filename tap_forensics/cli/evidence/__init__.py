"""The lines that the function wrote, read back: records, indicators, and what SecOps is said to make of them."""
