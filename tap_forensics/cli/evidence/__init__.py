"""The lines that the function wrote, read back: records, indicators, and what SecOps makes of them."""
