"""Values in another element type."""

from megbrain_py.ops.cast.cast import cast as cast
