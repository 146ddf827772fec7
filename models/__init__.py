"""The networks; each uses only the public API."""

if not __name__.startswith("megbrain_py."):
    raise ImportError("import megbrain_py.models, not models: the folder is a part of that package")
