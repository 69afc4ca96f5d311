"""The models registered with lmms-eval: the only room that imports it."""
