"""The command line: train, eval, predict, compare, check-data, info, test-op, build-op, new-op, bench."""
