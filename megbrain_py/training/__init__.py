"""Training: configuration, checkpoints, the trainer, its log and its evaluation."""
