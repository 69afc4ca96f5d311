"""The command line: thin; every step is also a Python call."""
