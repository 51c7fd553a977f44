# Everything runs in an environment of its own, .venv, made from locked files at the first use.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Supported interpreters beside $(PYTHON); `make test` uses those this machine has.
OTHERS := 3.11 3.12 3.13 3.14

.PHONY: demo run test check tests others quick bench readme screenshot lock clean

demo: $(VENV)/ready
	$(RUN) -m tap_forensics.sandbox demo

run: $(VENV)/ready
	$(RUN) -m tap_forensics.sandbox run

test: check tests others

check: $(VENV)/ready
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

tests: $(VENV)/ready
	$(RUN) -m pytest

# The other interpreters run what differs between them: the code, not the crashes. pyenv keeps them off the PATH.
others: $(VENV)/ready
	@for version in $(OTHERS); do \
	  if $(RUN) -V | grep -q " $$version\."; then continue; fi; found=; \
	  for python in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python; do \
	    if $$python -c '' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "Python $$version: not on this machine"; continue; fi; \
	  echo "Python $$version:"; \
	  $(MAKE) --no-print-directory VENV=.venv-$$version PYTHON=$$found quick || exit 1; \
	done

quick: $(VENV)/ready
	$(RUN) -m pytest -q tests/unit tests/properties tests/faults/test_worlds.py

readme: $(VENV)/ready
	$(RUN) -m tests.readme

# README's picture of the report; needs a Chromium.
screenshot: $(VENV)/ready
	$(RUN) -m tests.evidence.screenshot

bench: $(VENV)/ready
	$(RUN) -m tests.bench
	$(RUN) -m tests.bench.events
	$(RUN) -m tests.bench.page

# One resolution for every supported Python, with hashes; no address of any index goes into the files.
lock: $(VENV)/ready
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" $(UPGRADE) pyproject.toml --output-file requirements.txt
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" $(UPGRADE) --extra dev --constraints requirements.txt pyproject.toml \
	  --output-file tests/requirements.txt

$(VENV)/ready: requirements.txt tests/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements.txt
	@touch $@

clean:
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
