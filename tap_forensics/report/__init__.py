"""Reads evidence and event lines back: UDM preview, report page, exports. Not deployed."""
