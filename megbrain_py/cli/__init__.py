"""The command line: megbrain train, eval, predict, check-data, info, test-op, bench."""
