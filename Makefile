# Verbs of this project. `make demo` and `make test` also set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PROTOS := $(wildcard proto/adpsgd_node/wire/v1/*.proto)
PROTOC := $(BIN)/python -m grpc_tools.protoc -Iproto

.PHONY: setup demo test test-all chaos check check-manifests check-image e2e-kube proto proto-check bench docs clean

# Install this project, editable, with every dependency at its tested version.
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -q adpsgd_node cli
	touch $@

# Train handwritten digits on four nodes of this machine; ends by itself.
demo: $(STAMP)
	$(BIN)/adpsgd-node demo

# Tests that start nodes run one at a time, and mostly wait. Meanwhile those that start none have what is left of the
# processors; what they print comes last.
WITH_NODES := tests/chaos tests/integration
WITHOUT := $(filter-out $(WITH_NODES) tests/__pycache__ tests/support,$(wildcard tests/*))
define run_tests
	@mkdir -p build
	@nice -n 19 $(BIN)/python -m pytest $(1) -n auto --maxprocesses=8 $(WITHOUT) >build/tests-without-nodes.log 2>&1 & \
	others=$$!; trap 'kill $$others 2>/dev/null' EXIT; trap 'exit 130' INT TERM; \
	$(BIN)/python -m pytest $(1) --durations=10 --durations-min=20 $(WITH_NODES); with_nodes=$$?; \
	wait $$others; without=$$?; \
	cat build/tests-without-nodes.log; \
	exit $$((with_nodes || without))
endef

# All tests but the slow ones.
test: $(STAMP)
	$(call run_tests,-m "not slow")

test-all: $(STAMP)
	$(call run_tests)

# Hurt NODES real nodes at random for MINUTES while they train; SEED replays a run. As root each has a host of its own,
# else links cannot be cut. Progress goes to stderr; the last line of stdout is the result as one JSON object.
MINUTES ?= 10
NODES ?= 8
chaos: $(STAMP)
	@PYTHONPATH=tests $(BIN)/python -m chaos --minutes $(MINUTES) --nodes $(NODES) $(if $(SEED),--seed $(SEED))

# What must hold besides the tests: style, types, layers, generated code.
check: $(STAMP) build/types/adpsgd_cli
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	MYPYPATH=build/types $(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory proto-check
	$(MAKE) --no-print-directory check-manifests

# What Kubernetes and the container build are given: strict schemas of two versions, policies, the Dockerfile's linter.
check-manifests:
	PYTHON=$(PYTHON) k8s/check

# Look into the image IMAGE and run it; CONTAINERS is what runs containers here: docker or podman.
IMAGE ?= adpsgd-node:0.1.0
CONTAINERS ?= docker
check-image:
	@CONTAINERS="$(CONTAINERS)" $(PYTHON) k8s/check_image.py $(IMAGE)

# The dev overlay on the cluster that kubectl points to, which must have the image: deleted pods, scaling, rolling.
e2e-kube: $(STAMP)
	@PYTHONPATH=tests $(BIN)/python k8s/e2e

# mypy finds packages by folder name; the folder cli/ installs as adpsgd_cli.
build/types/adpsgd_cli:
	mkdir -p build/types
	ln -sfn ../../cli $@

# Generate the protobuf code anew; it is committed.
proto: $(STAMP)
	$(PROTOC) --python_out=. --pyi_out=. $(PROTOS)

# The committed protobuf code must be what the .proto files give.
proto-check: $(STAMP)
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PROTOC) --python_out="$$folder" --pyi_out="$$folder" $(PROTOS); \
	diff -r -x __init__.py -x __pycache__ "$$folder/adpsgd_node/wire/v1" adpsgd_node/wire/v1 \
	  || { echo "generated protobuf code is stale: run make proto"; exit 1; }; \
	echo "generated protobuf code is up to date"

# Measure exchanges against plain sockets and all-reduce, steps while a peer is stopped or killed, and what joining costs
# the donors; 5 minutes.
bench: $(STAMP)
	$(BIN)/python benchmarks/exchange.py --detail
	$(BIN)/python benchmarks/wait_free.py
	$(BIN)/python benchmarks/joining.py --donors 1 --compute --width 1024

# There is nothing to build: the documents must only not point at what does not exist.
docs: $(STAMP)
	$(BIN)/python -m pytest -q tests/unit/test_docs.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo-output runs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
