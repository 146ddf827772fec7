"""Looks at runs from outside: profile and roof, trace, checks (docs/profiling.md)."""
