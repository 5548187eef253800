# make demo   an environment, the package with one backend, a model trained on real images, its report
# make test   an environment with the three backends, lint, types, tests of what is computed
# make changed  lint, types and the tests that what differs from main concerns; CI runs all
# make test-peers  the tests of the names and numbers of other libraries
# make test-runs  the tests of whole runs: training, the command line, several processes, benchmarks
# make test-pages  the served page and the report, in a browser
# make site  the documentation as a site, in build/site
# make test-r the R package: its check, its tests and its example, in an environment of its own
# make test-wheel  what users install: sdist and wheel, installed apart and trained with
# make test-versions  the tests with another Python, the oldest or the newest frameworks: tools/check_versions.sh
# make bench  an environment with the peers too, then the loss benchmark (about a quarter of an hour)

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/glyphs
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test changed test-peers test-runs test-pages test-r test-wheel test-versions site bench clean

demo: $(VENV)/.demo
	@if [ -e "$(RUN)/config.json" ]; then $(BIN)/kinfold train --resume "$(RUN)"; \
	else $(BIN)/kinfold train glyphs --out "$(RUN)" --backend jax; fi
	@echo "Open $(RUN)/report.html"

test: $(VENV)/.test
	$(BIN)/python tools/check.py core

changed: $(VENV)/.test
	$(BIN)/python tools/check.py changed
	@for target in $$($(BIN)/python tools/changed.py); do $(MAKE) --no-print-directory $$target || exit 1; done

test-peers: $(VENV)/.test
	$(BIN)/python tools/check.py peers

test-runs: $(VENV)/.test
	$(BIN)/python tools/check.py runs

test-pages: $(VENV)/.test
	@PYTHON=$(BIN)/python tools/check_pages.sh

site: $(VENV)/.test
	$(BIN)/python tools/site.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

test-r:
	@VENV_R=$(VENV)-r PYTHON=$(PYTHON) tools/check_r.sh

test-wheel:
	@VENV_WHEEL=$(VENV)-wheel PYTHON=$(PYTHON) tools/check_wheel.sh

BACKEND ?= jax
test-versions:
	@PYTHON=$(PYTHON) tools/check_versions.sh $(BACKEND)

bench: $(VENV)-bench/.bench
	$(VENV)-bench/bin/python -m benchmarks losses

# JAX is the smallest of the three to install, and the quickest on a CPU.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[jax,train]'
	@touch $@

# tensorflow-cpu: the same TensorFlow without the parts that a test machine has no use for.
$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[jax,torch,gpu,train,dev,docs]' tensorflow-cpu
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Debian's reticulate refuses NumPy 2, and the newest ml_dtypes NumPy 1: constraints.txt names both.
$(VENV)-r/.test: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-r
	sed -n 's/^# r: //p' constraints.txt | cut -d= -f1 | sed 's/.*/^&==/' | grep -v -f - constraints.txt \
	    > $(VENV)-r/constraints.txt
	sed -n 's/^# r: //p' constraints.txt >> $(VENV)-r/constraints.txt
	$(VENV)-r/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
	    -c $(VENV)-r/constraints.txt -e '.[torch,train]'
	@touch $@

$(VENV)-bench/.bench: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	    -e '.[jax,torch,train]' tensorflow-cpu pytorch-metric-learning
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-bench $(VENV)-r $(VENV)-wheel .venv-versions build dist
