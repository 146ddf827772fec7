# The commands a person types. `.venv` is made once and made again when the sources of the engine
# or the requirements change; Python sources take effect at once (an editable install).
.DELETE_ON_ERROR:
.SUFFIXES:
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --retries 8 --timeout 60
ENGINE_SOURCES := CMakeLists.txt setup.py pyproject.toml \
                  $(shell find engine ops -name '*.cpp' -o -name '*.h' -o -name '*.cu') \
                  engine/cuda/CMakeLists.txt

.PHONY: demo test lint lint-ruff lint-types lint-layers lint-cpp bench bars test-cuda clean

demo: $(VENV)/.installed
	$(BIN)/python -m megbrain_py.cli.demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(PYTEST_ARGS)

lint: lint-ruff lint-types lint-layers lint-cpp

lint-ruff: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint-types: $(VENV)/.lint
	$(BIN)/mypy

lint-layers: $(VENV)/.lint
	$(BIN)/lint-imports

lint-cpp: $(VENV)/.lint
	find engine ops tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' | \
	  xargs $(BIN)/clang-format --dry-run -Werror

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/resnet50_step.py $(BENCH_ARGS)

bars: $(VENV)/.installed
	$(BIN)/python benchmarks/bars.py $(BARS_ARGS)

# The CUDA backend without a GPU (docs/devices.md); needs nvcc.
test-cuda: $(VENV)/.installed
	@test -f megbrain_py/libmb_cuda.so || { \
	  echo "test-cuda: building again, with the CUDA backend"; \
	  MB_CMAKE_ARGS="$$MB_CMAKE_ARGS -DMB_CUDA=ON" $(PIP) install --quiet --editable '.[test,demo]'; }
	$(BIN)/python -m pytest -q tests/cuda $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info
	rm -f megbrain_py/_engine*.so megbrain_py/libdnnl.so.* megbrain_py/libmb_*.so

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Python >= 3.10 is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	       "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module (on Debian and Ubuntu: apt install python3-venv)." >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created $(ENGINE_SOURCES)
	@command -v $${CXX:-c++} >/dev/null || { \
	  echo "A C++20 compiler is needed (GCC >= 11 or Clang >= 14); $${CXX:-c++} was not found." >&2; \
	  exit 1; }
	$(PIP) install --quiet --editable '.[test,demo]'
	touch $@

$(VENV)/.lint: $(VENV)/.installed
	$(PIP) install --quiet $$($(BIN)/python -c "$$LINT_REQUIREMENTS")
	touch $@

# The extra `lint` of pyproject.toml, without building the engine again.
define LINT_REQUIREMENTS
from importlib.metadata import requires
for r in requires('megbrain_py'):
    if 'extra ==' in r and 'lint' in r.split('extra ==')[1]:
        print(r.split(';')[0].strip())
endef
export LINT_REQUIREMENTS
