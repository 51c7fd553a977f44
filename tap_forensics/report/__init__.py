"""What was written, read back: UDM preview, report page, exports. Not deployed."""
