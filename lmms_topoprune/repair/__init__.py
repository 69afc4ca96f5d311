"""Training-free repair of the layers around a cut."""
