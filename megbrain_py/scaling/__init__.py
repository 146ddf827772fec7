"""How long a training step would take on many devices: a model, from the compiled plan."""
