# make demo    train a small network on handwritten digits and print what it learns
# make test    run the tests; ARGS goes to pytest: make test ARGS="-k fold -x"
# make check   lint, format and types
# make clean   remove everything that these made
#
# Each installs what it needs into .venv first. PYTHON chooses the interpreter that .venv is made from.

PYTHON ?= python3
VENV ?= .venv

.PHONY: demo test check clean

demo: $(VENV)/installed-examples
	$(VENV)/bin/python examples/train_digits.py

# Several processes with one BLAS thread each: the tests' arrays are far too small for threads to pay.
test: $(VENV)/installed-dev $(VENV)/installed-classifier
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(VENV)/bin/pytest --numprocesses=auto --maxprocesses=4 $(ARGS)

check: $(VENV)/installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# A stale build/ would put deleted modules into the next wheel.
clean:
	rm -rf $(VENV) build dist minigraph.egg-info out .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find minigraph ops passes tests examples -name __pycache__ -prune -exec rm -rf {} +

# installed-X says that the extra X is there, at the versions of these two files.
$(VENV)/installed-%: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing minigraph[$*] into $(VENV), about half a minute ..."
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$*]"
	@touch $@

# A trained network for the tests: a file in this wheel, which is installed without what would run it.
$(VENV)/installed-classifier: constraints.txt | $(VENV)/installed-dev
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps \
		--ignore-requires-python rapidocr-onnxruntime
	@touch $@

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "minigraph needs Python 3.10 or newer, and there is no program" \
		"'$(PYTHON)': name one, as in 'make PYTHON=/usr/bin/python3.12 $(MAKECMDGOALS)'." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "minigraph needs Python 3.10 or newer," \
		"and '$(PYTHON)' is $$($(PYTHON) --version 2>&1): name another, as in" \
		"'make PYTHON=/usr/bin/python3.12 $(MAKECMDGOALS)'." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "'$(PYTHON)' cannot make a virtual environment, its" \
		"modules venv and ensurepip are missing: on Debian and Ubuntu type 'apt-get install python3-venv'." >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
