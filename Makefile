# Each target sets up what it needs in .venv; a second run only checks stamps.
VENV    := .venv
BIN     := $(VENV)/bin
PYTHON  ?= python3
JOBS    ?= 2

CXX_FILES := $(shell find clib targets/rtl/sim -name '*.cpp' -o -name '*.h' -o -name '*.hpp')
# Directories count too: their time changes when a source comes or goes.
NATIVE  := clib/CMakeLists.txt $(filter clib/%,$(CXX_FILES)) $(shell find clib -type d) $(wildcard targets/generated/*.h)
PIP     := $(BIN)/pip install --quiet --disable-pip-version-check
PYTEST  := $(BIN)/python -m pytest -q
STORIES := output/stories
MINUTES ?= 10
EXAMPLES ?= 10000
PROGRAMS ?= 1000
# Expressions; text of graphs and tasks; passes; order of nodes; memory plans; generated code; tilings; engines.
SWEEP   ?= $(addprefix tests/,prop/test_sym_prop.py prop/test_graph_text_prop.py prop/test_task_prop.py \
           prop/test_passes_prop.py unit/test_passes_order.py unit/test_codegen.py ops/test_random_graphs.py ops/test_engines.py)
SHARED  ?= ../shared

.DEFAULT_GOAL := help
.PHONY: help demo test test-all sweep test-rtl bench accuracy timing lint format gen wheel clean
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.stamp-core  ## build the bundled model for v3 and let it tell a story
	$(BIN)/dlavm build models/stories.py --target v3 -o $(STORIES)
	$(BIN)/dlavm run $(STORIES) --prompt "Tell me a story about a dog and a ball."

test: lint  ## lint, then every test that is not marked slow
	$(PYTEST) -n $(JOBS) -m "not slow" tests

test-all: lint  ## lint, then every test
	$(PYTEST) -n $(JOBS) tests

sweep: $(VENV)/.stamp-test  ## 10,000 examples of each property that SWEEP names, 1,000 programs on the Verilated core; some hours
	TEST_EXAMPLES=$(EXAMPLES) $(PYTEST) -n $(JOBS) -m "not slow" $(SWEEP)
	TEST_EXAMPLES=$(PROGRAMS) $(PYTEST) -n $(JOBS) tests/rtl/test_core.py -k "many_random_programs and v3"

test-rtl: $(VENV)/.stamp-test  ## the RTL alone: blocks with cocotb, whole programs on the Verilated core
	$(PYTEST) -n $(JOBS) tests/rtl

bench: $(VENV)/.stamp-core  ## speed and memory of the bundled model, beside llama.cpp if installed; writes doc/benchmarks.*, says what got worse
	$(BIN)/python scripts/benchmark.py

accuracy: $(VENV)/.stamp-core  ## perplexity in every weight format and cache, of two models; writes doc/accuracy.md
	OPENBLAS_NUM_THREADS=1 $(BIN)/python scripts/accuracy.py --shared $(SHARED)

timing: $(VENV)/.stamp-test  ## cycles of the timed simulator beside the Verilated core's; writes doc/timing.md
	$(BIN)/python scripts/timing.py

fuzz: $(VENV)/.stamp-core  ## libFuzzer on the two servers, MINUTES=10 each; needs clang
	$(BIN)/python scripts/fuzz.py --minutes $(MINUTES)

soak: $(VENV)/.stamp-core  ## the server of the bundled model among clients of all kinds, for MINUTES=10
	$(BIN)/python scripts/soak.py --minutes $(MINUTES)

lint: $(VENV)/.stamp-test  ## ruff, mypy, clang-format, generated files up to date
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)
	$(BIN)/python -m dlavm.target.gen --check
	$(BIN)/python -m dlavm.wire.gen --check
	$(BIN)/python scripts/families.py --check

format: $(VENV)/.stamp-test  ## lay out the C++ and sort the Python imports
	$(BIN)/clang-format -i $(CXX_FILES)
	$(BIN)/ruff check --fix --select I .

gen:  ## write the generated files anew from targets/, dlavm/wire/ and the families of the tests
	@# Not on the stamp itself: C++ that uses a new command does not compile before its header is written.
	test -e $(VENV)/.stamp-test || $(MAKE) $(VENV)/.stamp-test
	$(BIN)/python -m dlavm.target.gen
	$(BIN)/python -m dlavm.wire.gen
	$(BIN)/python scripts/families.py

wheel: $(VENV)/.stamp-core  ## a wheel in dist/
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation -w dist .

clean:  ## remove .venv and everything that was built
	rm -rf $(VENV) build dist output/* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.stamp-tools:
	$(PYTHON) -m venv $(VENV)
	$(PIP) "scikit-build-core>=0.11" "ninja>=1.11"
	touch $@

# Without build isolation the build folder stays valid, so that a changed C++ file costs one compilation.
$(VENV)/.stamp-core: EXTRAS :=
$(VENV)/.stamp-test: EXTRAS := [dev,hf,rtl,serve]
$(VENV)/.stamp-core $(VENV)/.stamp-test: $(VENV)/.stamp-tools pyproject.toml $(NATIVE)
	$(PIP) --no-build-isolation -e ".$(EXTRAS)"
	touch $@
