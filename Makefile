# make demo      from nothing: an environment, the package, every exercise of the course report
#                run again, and a page with its figures beside ours
# make demo-full fetches CIFAR-10 and the face mask set as well, and trains everything (20 minutes)
# make test      from nothing: the fast tests, in a few minutes
# make test-all  the slow tests as well (what CI runs)
# make fuzz      changed files at every reader, a few minutes each
# make docs      the API reference from the docstrings, in build/docs
# make site      the documents as a searchable site with the API reference, in build/site/VERSION
# make wheel     builds the source distribution and the wheels, and tries them without a compiler
# make check     format, lint, types, import directions

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Compiling what is installed takes half of the time; Python compiles what it loads.
INSTALL := $(BIN)/pip install -q --no-compile
unexport PYTHONDONTWRITEBYTECODE

SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(wildcard src/unmask/sweep/native/*)

.PHONY: demo demo-full test test-all docs site check wheel clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/unmask reproduce --quick --resume

# What can't be fetched is said in the report; the rest runs.
demo-full: $(VENV)/.installed
	$(INSTALL) -e '.[faces]'
	-$(BIN)/unmask data all
	$(BIN)/unmask reproduce --resume

test: $(VENV)/.developed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(PYTEST_ARGS)

# Only the files that have slow tests are read.
test-all: test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow $$(grep -rl --include='test_*.py' slow tests) $(PYTEST_ARGS)

# 20,000 changed files of each kind; what is found is kept by hypothesis and tried first next time.
# Then three minutes of random nets through the kernel under the sanitizers.
fuzz: $(VENV)/.developed
	UNMASK_FUZZ=$(or $(FUZZ),20000) $(BIN)/python -m pytest -n 2 tests/hostile/test_fuzz.py $(PYTEST_ARGS)
	UNMASK_FUZZ_KERNEL=180 $(BIN)/python -m pytest tests/sweep/test_sanitizers.py $(PYTEST_ARGS)

docs: $(VENV)/.documented
	$(BIN)/python docs/api.py

site: $(VENV)/.documented
	$(INSTALL) --group site
	$(BIN)/zensical build --clean
	$(BIN)/python docs/api.py build/pages/api
	$(BIN)/python docs/versions.py build/pages build/site

check: $(VENV)/.developed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A source distribution, the wheel with the kernel and the one without, which runs anywhere; then
# each is installed where there is no compiler, and run.
wheel: $(VENV)/bin/python
	rm -rf dist build/wheel
	$(INSTALL) build
	$(BIN)/python -m build -o dist
	UNMASK_PURE=1 $(BIN)/python -m build --wheel -o dist
	ls -l dist
	for wheel in dist/*.whl; do sh tests/packaging/bare.sh $(PYTHON) $$wheel build/wheel || exit 1; done

clean:
	rm -rf $(VENV) build dist runs

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "unmask needs Python 3.11 or newer: install it, or run make PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "unmask needs Python 3.11 or newer; got $$($(PYTHON) --version): run make PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "this Python can't make virtual environments: install python3-venv"; exit 2; }
	@command -v $${CXX:-c++} >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || echo "no C++20 compiler (g++ 11, clang 14 or newer): sweeps will run on PyTorch, several times slower"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip

# Editable, so that a change of the Python code needs no installation; the kernel is built anew
# when its sources change.
$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	$(INSTALL) -e .
	@touch $@

$(VENV)/.developed: $(VENV)/.installed
	$(INSTALL) --group dev
	@touch $@

$(VENV)/.documented: $(VENV)/.installed
	$(INSTALL) --group docs
	@touch $@
