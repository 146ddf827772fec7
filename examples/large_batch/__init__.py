"""The large-batch study: what the talk says of batch sizes, measured on a laptop's detector."""
