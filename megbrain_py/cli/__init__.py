"""The command line `megbrain`: one file for each command, or for a few of a kind."""
