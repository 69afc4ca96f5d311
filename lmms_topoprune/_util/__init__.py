"""Files, cache, locks, signals, timing, devices: nothing about pruning."""
