"""Tables and a picture of what benchmarks/memory_budget.py measured."""


def report(results):
    pass
