# `make demo`, `make test` and `make lint` each install what they need into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
export GOMP_SPINCOUNT ?= 10000

.PHONY: install demo test lint docs bench clean help

help:
	@echo "make demo    install the package, then run the main job on the embedded phantom; ends with the path of the report"
	@echo "make test    install, then run the tests"
	@echo "make lint    install, then ruff and mypy --strict"
	@echo "make docs    install, then build the site of the documents into site/, without a network"
	@echo "make bench   install, then the benchmarks (ratios measured in one run)"
	@echo "make clean   remove what these made"

install: $(VENV)/.installed

# torch first and pinned: an unpinned one would bring several GB of CUDA to a machine without a GPU
$(VENV)/.package: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("equigen needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt '$(TORCH)'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed: $(VENV)/.package
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.package
	$(BIN)/equigen demo --out equigen-demo

# one thread a process: two torch processes of two threads each are many times slower on two cores
test: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check --quiet src tests benchmarks tools docs examples
	$(BIN)/mypy

docs: install
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo site/index.html

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) equigen-demo site
