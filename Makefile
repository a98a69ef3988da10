# make demo: set up in .venv and train the example; make test: set up and pass the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check laws proofs table clean

demo: .venv/ready
	$(BIN)/cnnlab conv=decoupled_tanh ortho_weight=0.1

test: .venv/ready
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

laws: .venv/ready  # what every convolution must obey, in under a minute
	$(BIN)/pytest -n 2 -rs tests/test_conv.py

proofs: .venv/ready  # the tests that take minutes
	$(BIN)/pytest -m slow

table: .venv/ready  # README's table from the committed results
	$(BIN)/python -m cnnlab.report.markdown tests/reference README.md

# CPU builds of torch exist for this version everywhere; on a GPU machine the same line gives the CUDA build.
.venv/ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf .venv
