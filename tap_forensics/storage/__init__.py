"""The bucket, and what is kept in it."""
