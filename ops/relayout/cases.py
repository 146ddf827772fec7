"""Examples of the relayout room."""

from megbrain_py.op_testing import Case, ErrorCase

CASES: list[Case] = []
ERRORS: list[ErrorCase] = []
