"""The operators, one room each (docs/add_an_operator.md)."""

if not __name__.startswith("megbrain_py."):
    raise ImportError("import megbrain_py.ops, not ops: the folder is a part of that package")
