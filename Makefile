# make demo   an environment, the package with one backend, a model trained on real images, its report
# make test   an environment with the three backends, lint, types, all tests, one closing summary

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/glyphs
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test clean

demo: $(VENV)/.demo
	@if [ -e "$(RUN)/config.json" ]; then $(BIN)/kinfold train --resume "$(RUN)"; \
	else $(BIN)/kinfold train glyphs --out "$(RUN)" --backend jax; fi
	@echo "Open $(RUN)/report.html"

test: $(VENV)/.test
	$(BIN)/python tools/check.py

# JAX is the smallest of the three to install, and the quickest on a CPU.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[jax,train]'
	@touch $@

# tensorflow-cpu: the same TensorFlow without the parts that a test machine has no use for.
$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[jax,torch,train,dev]' tensorflow-cpu
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist
