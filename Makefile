# make demo   an environment, the package with one backend, a model trained on real images, its report
# make test   an environment with the three backends, lint, types, all tests, one closing summary
# make bench  an environment with the peers too, then the loss benchmark (about a quarter of an hour)

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/glyphs
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test bench clean

demo: $(VENV)/.demo
	@if [ -e "$(RUN)/config.json" ]; then $(BIN)/kinfold train --resume "$(RUN)"; \
	else $(BIN)/kinfold train glyphs --out "$(RUN)" --backend jax; fi
	@echo "Open $(RUN)/report.html"

test: $(VENV)/.test
	$(BIN)/python tools/check.py

bench: $(VENV)-bench/.bench
	$(VENV)-bench/bin/python -m benchmarks losses

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

$(VENV)-bench/.bench: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	    -e '.[jax,torch,train]' tensorflow-cpu pytorch-metric-learning
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-bench build dist
