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
                  $(shell find engine ops -name '*.cpp' -o -name '*.h' -o -name '*.in' -o -name '*.cu') \
                  engine/cuda/CMakeLists.txt
PYTHON_SOURCES := $(shell find megbrain_py ops models -name '*.py')

.PHONY: demo test sanitize sanitize-thread lint lint-ruff lint-types lint-layers lint-cpp bench bars \
        test-cuda clean

demo: $(VENV)/.installed
	$(BIN)/python -m megbrain_py.cli.demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(PYTEST_ARGS)

# The engine built with sanitizers, in a folder of its own, under the tests that load it. GCC only.
SANITIZED_TESTS := $(addprefix tests/test_,operators.py engine.py index_errors.py bad_plans.py \
                     planning.py collectives.py sanitizers.py asynchronous.py waits.py overlap.py)
THREAD_TESTS := $(addprefix tests/test_,operators.py engine.py data_loader.py collectives.py \
                  sanitizers.py asynchronous.py waits.py overlap.py)
PRELOAD = $$($${CXX:-c++} -print-file-name=$(1)) $$($${CXX:-c++} -print-file-name=libstdc++.so)
SANITIZED = env PYTHONPATH=.venv-$(1) PYTHONSAFEPATH=1 PYTHONMALLOC=malloc OPENBLAS_NUM_THREADS=1 \
            LD_PRELOAD="$(call PRELOAD,$(2))"

SHOW_REPORTS = || { cat .venv-$(1)/report.* >&2; exit 1; }

sanitize: export ASAN_OPTIONS = detect_leaks=0:log_path=$(CURDIR)/.venv-address/report
sanitize: export UBSAN_OPTIONS = print_stacktrace=1:log_path=$(CURDIR)/.venv-address/report
sanitize: .venv-address/.installed
	rm -f .venv-address/report.*
	$(call SANITIZED,address,libasan.so) \
	  $(BIN)/pytest -q -n 2 $(SANITIZED_TESTS) $(call SHOW_REPORTS,address)

sanitize-thread: export TSAN_OPTIONS = $\
  halt_on_error=1:suppressions=$(CURDIR)/tests/tsan.supp:log_path=$(CURDIR)/.venv-thread/report
sanitize-thread: .venv-thread/.installed
	rm -f .venv-thread/report.*
	setarch -R $(call SANITIZED,thread,libtsan.so) \
	  $(BIN)/pytest -q -n 2 $(THREAD_TESTS) $(call SHOW_REPORTS,thread)

lint: lint-ruff lint-types lint-layers lint-cpp

lint-ruff: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint-types: $(VENV)/.lint
	$(BIN)/mypy

lint-layers: $(VENV)/.lint
	$(BIN)/lint-imports

lint-cpp: $(VENV)/.lint
	find engine ops examples tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' | \
	  xargs $(BIN)/clang-format --dry-run -Werror

bench: $(VENV)/.installed
	$(BIN)/megbrain bench resnet50 $(BENCH_ARGS)

bars: $(VENV)/.installed
	$(BIN)/python benchmarks/bars.py $(BARS_ARGS)

# The CUDA backend without a GPU (docs/devices.md); needs nvcc.
test-cuda: $(VENV)/.installed
	@test -f megbrain_py/libmb_cuda.so || { \
	  echo "test-cuda: building again, with the CUDA backend"; \
	  MB_CMAKE_ARGS="$$MB_CMAKE_ARGS -DMB_CUDA=ON" $(PIP) install --quiet --editable '.[test,demo]'; }
	$(BIN)/python -m pytest -q tests/cuda $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) .venv-address .venv-thread build dist *.egg-info
	rm -f megbrain_py/_engine*.so megbrain_py/_planner*.so megbrain_py/libdnnl.so.* megbrain_py/libmb_*.so

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

SANITIZE_address := address,undefined,float-cast-overflow
SANITIZE_thread := thread
LEVEL := $(if $(filter x86_64,$(shell uname -m)),v3,base)

# Only one level of kernels. The requirements are those of $(VENV).
.venv-%/.installed: $(VENV)/.installed $(ENGINE_SOURCES) $(PYTHON_SOURCES)
	mkdir -p .venv-$*
	printf '[build]\nbuild_base = .venv-$*/build\n' > .venv-$*/build.cfg
	DIST_EXTRA_CONFIG=.venv-$*/build.cfg \
	MB_CMAKE_ARGS="$$MB_CMAKE_ARGS -DMB_SANITIZE=$(SANITIZE_$*) -DMB_ISAS=$(LEVEL)" \
	  $(PIP) install --quiet --no-deps --upgrade --target .venv-$* .
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
