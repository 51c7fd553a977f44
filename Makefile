# Everything runs in an environment of its own, .venv, made from locked files at the first use.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Supported interpreters beside $(PYTHON); `make test` uses those this machine has.
OTHERS := 3.11 3.12 3.13 3.14

.PHONY: demo run test check tests others quick bench docs screenshot lock locked scan clean

demo: $(VENV)/ready
	$(RUN) -m tap_forensics.sandbox demo

run: $(VENV)/ready
	$(RUN) -m tap_forensics.sandbox run

test: check tests others

check: $(VENV)/ready
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

# Side by side, even on two cores: most tests wait more than they work.
pytest = $(RUN) -m pytest --numprocesses 3 --dist loadfile

tests: $(VENV)/ready
	$(pytest)

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
	$(pytest) -q tests/unit tests/properties tests/integration/faults/test_worlds.py

# The generated parts of README and docs/.
docs: $(VENV)/ready
	$(RUN) -m tests.docs

# README's picture of the report; needs a Chromium.
screenshot: $(VENV)/ready
	$(RUN) -m tests.integration.report.screenshot

bench: $(VENV)/ready
	$(RUN) -m tests.bench
	$(RUN) -m tests.bench.events
	$(RUN) -m tests.bench.tenants
	$(RUN) -m tests.bench.page

# One resolution for every supported Python, with hashes; no address of any index goes into the files.
compile = $(abspath $(VENV))/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --custom-compile-command "make lock" $(UPGRADE) pyproject.toml
compile_both = $(compile) --output-file requirements.txt && \
  $(compile) --extra dev --constraints requirements.txt --output-file tests/requirements.txt

lock: $(VENV)/ready
	$(compile_both)

# Whether both files are what pyproject.toml gives, with the versions that are in them. Asks the index.
locked: $(VENV)/ready
	@set -e; copy=$$(mktemp -d); trap 'rm -r "$$copy"' EXIT; mkdir "$$copy/tests"; \
	cp pyproject.toml requirements.txt "$$copy"; cp tests/requirements.txt "$$copy/tests"; \
	(cd "$$copy" && $(compile_both)); \
	for file in requirements.txt tests/requirements.txt; do \
	  diff -u $$file "$$copy/$$file" || { echo "$$file is not what pyproject.toml gives: make lock"; exit 1; }; \
	done; echo "The lock files are what pyproject.toml gives."

# The Terraform under checkov's rules, a skip with its reason in place. Fetched from the index at its first use.
scan: $(VENV)/ready
	$(VENV)/bin/uv tool run --quiet --python $(RUN) --from checkov==3.3.30 checkov --directory deploy/terraform \
	  --framework terraform --compact --quiet --skip-download

$(VENV)/ready: requirements.txt tests/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements.txt
	@touch $@

clean:
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
