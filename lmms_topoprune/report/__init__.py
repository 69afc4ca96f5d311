"""A comparison as one HTML page, and as tables in files."""
