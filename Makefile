# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0

# Every target sets up what it needs by itself: .venv, and on Debian as root the few system
# packages that pip can not bring (.ci/prepare says which). Nothing is installed twice.

PYTHON ?= python3
VENV ?= .venv
TESTS ?= tests
# Most tests wait for servers: several files of tests at a time, each in one process. A test that fails
# is a fault; only CI, on whatever machine, tries one again, and the summary names it.
PYTEST_ARGS ?= -n 4 --dist loadfile --no-loadscope-reorder $(if $(CI),--reruns 3)

BIN := $(VENV)/bin
# What the image would hold, for the tests of the chart's pods; installed anew where it is not that any more.
IMAGE := .venv-image
SHIPPED := $(shell sed -n 's/^!//p' .containerignore | grep -vx web | xargs -I{} find {} -type f -not -name '*.pyc')
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

LOCK := .venv-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --custom-compile-command 'make lock'

# What wsproxy serves, and what it is built from.
PAGE := wsproxy/static/index.html
WEB := $(shell find web -name node_modules -prune -o -type f -print)

.PHONY: demo test suite page oldest newest test-faults test-hostile test-ages test-newest test-k8s check bench chart web lock install clean dist test-dist

demo: $(VENV)/.sandbox $(PAGE)
	$(BIN)/arvados-nats demo $(DEMO_ARGS)

# What needs nothing of each other, the longest first: `make -j2 test` runs two of them at a time.
test: suite page $(if $(filter tests,$(TESTS)),oldest $(if $(CI),newest))

# With the +, --output-sync shows its lines as they come.
suite: $(VENV)/.test $(IMAGE)/.installed
	.ci/prepare browser
	.ci/prepare helm
	.ci/prepare promtool
	+env -u MAKEFLAGS ARVADOS_NATS_IMAGE=$(IMAGE) $(BIN)/python -m pytest $(PYTEST_ARGS) $(TESTS)

page: $(VENV)/.test $(PAGE)
	.ci/web $(VENV) test

oldest: $(VENV)/.test
	.ci/oldest $(VENV)

newest: $(VENV)/.test
	PYTHON=$(PYTHON) .ci/newest

# The suite on another Python, in an environment of its own: make test-newest PYTHON=python3.13
test-newest:
	$(MAKE) VENV=.venv-newest PYTHON=$(PYTHON) .venv-newest/.test
	.venv-newest/bin/python -m pytest $(PYTEST_ARGS) $(TESTS)

# The flows in short form beside Arvados 2.7, 3.0, 3.1 and 3.2, and a table of them.
test-ages: $(VENV)/.test $(PAGE)
	$(BIN)/python -m pytest tests/ages tests/integration/admin/test_ages.py

# Everything fails once, in some ten minutes; MINUTES=60 goes on with faults by chance, SEED chooses the same again, and
# NAMED="disk;clocks" takes those alone. TABLE names a file for the table, which grows with each round, and beside which
# the histories of bad rounds are kept.
test-faults: $(VENV)/.test
	ARVADOS_NATS_FAULTS_MINUTES=$(or $(MINUTES),0) ARVADOS_NATS_FAULTS_TABLE=$(TABLE) \
	ARVADOS_NATS_FAULTS_SEED=$(SEED) ARVADOS_NATS_FAULTS_NAMED="$(NAMED)" $(BIN)/python -m pytest -s -m 'storm or not storm' tests/faults

# Handfuls of hostile messages to every stream, with all services at work; 40 a minute.
test-hostile: $(VENV)/.test
	ARVADOS_NATS_FUZZ_EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/python -m pytest tests/hostile/streams/test_streams.py

check: $(VENV)/.check $(PAGE)
	.ci/web $(VENV) check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test $(PAGE)
	$(if $(BENCH),$(BIN)/python -m bench $(BENCH),\
		$(BIN)/python -m bench publish && $(BIN)/python -m bench latency)

chart: $(VENV)/.test $(IMAGE)/.installed
	.ci/prepare helm
	.ci/prepare promtool
	ARVADOS_NATS_IMAGE=$(IMAGE) $(BIN)/python -m pytest $(PYTEST_ARGS) tests/chart

# The chart on a real Kubernetes API server, with admission and controllers; needs Go, and time to
# build it once.
test-k8s: $(VENV)/.test
	.ci/prepare helm
	.ci/prepare kubernetes
	$(BIN)/python -m pytest -m kubernetes tests/k8s

# The newest of each package that the image and the units install, with its hashes, and what they are
# made of (CycloneDX).
lock: $(PAGE)
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check --group lock
	$(LOCK) --group build -o requirements/build.txt
	$(LOCK) --extra server --extra otel pyproject.toml -o requirements/image.txt
	$(LOCK) --extra server --extra otel --extra nats-server pyproject.toml -o requirements/units.txt
	.ci/image $(IMAGE) $(PYTHON)
	rm -r $(IMAGE)/lib/python3*/site-packages/arvados_nats-*.dist-info
	.venv-lock/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		-o requirements/sbom.json $(IMAGE)
	rm -r $(IMAGE)

# What units run: make install PREFIX=/opt/arvados-nats
PREFIX ?= /opt/arvados-nats
INSTALL := $(PREFIX)/bin/python -m pip install --quiet --disable-pip-version-check
install: $(PAGE)
	$(PYTHON) -m venv $(PREFIX)
	$(INSTALL) --require-hashes -r requirements/build.txt
	$(INSTALL) --require-hashes --no-build-isolation -r requirements/units.txt
	$(INSTALL) --no-deps --no-build-isolation .

# What a release consists of, in dist/; needs Go for the packager.
dist: $(VENV)/.sandbox $(PAGE)
	.ci/dist $(VENV)

# The packages into bare Debians, up to an event delivered there; needs mmdebstrap and root.
test-dist: dist $(VENV)/.test
	.ci/test-dist $(VENV)

# The page, built from TypeScript with the machine's Node.js or one that pip brings.
web: $(PAGE)

clean:
	rm -rf dist web/node_modules wsproxy/static .venv .venv-newest .venv-image .venv-lock .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(VENV)/.sandbox: pyproject.toml
	.ci/prepare venv $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=25.1'
	$(PIP) --editable '.[server]' --group sandbox
	touch $@

$(VENV)/.test: $(VENV)/.sandbox
	$(PIP) --group test
	touch $@

$(VENV)/.check: $(VENV)/.test
	$(PIP) --group check
	touch $@

$(IMAGE)/.installed: $(PAGE) $(SHIPPED) Containerfile .ci/image
	.ci/image $(IMAGE) $(PYTHON)
	touch $@

# The page's files have other names after it was built anew.
wsproxy/static/%: ;

$(PAGE): $(WEB) | $(VENV)/.sandbox
	.ci/web $(VENV)
