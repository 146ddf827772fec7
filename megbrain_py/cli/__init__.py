"""The command line: train, eval, predict, check-data, info, test-op, build-op, new-op, bench."""
