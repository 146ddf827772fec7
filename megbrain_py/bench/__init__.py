"""`megbrain bench`: what a step, an operator and the loader cost, beside torch where it is."""
