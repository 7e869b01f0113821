# The front door. `make` alone prints the targets. CI calls the same targets that a person calls.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.NOTPARALLEL:

# What make itself reads may also stand in .env, read as compose reads it; the shell and make's arguments win.
from_env = $(shell [ -f .env ] && sed -nE -e 's/[[:space:]]+\#.*$$//' -e 's/[[:space:]]+$$//' \
    -e 's/^$(1)=["'\'']?([^"'\'']*)["'\'']?$$/\1/p' .env | tail -n 1)
$(foreach name,RUNNER LARDER_SOURCE LARDER_ARM LARDER_DATA_VOLUME LARDER_HOME LARDER_RESULTS LARDER_UID LARDER_GID \
    TORCH_INDEX_URL LARDER_STORE_DIR LARDER_MINIO_PORT LARDER_MOUNT_DIR LARDER_CACHE_DIR LARDER_WDS_VOLUME \
    LARDER_LIT_VOLUME LARDER_DEST LARDER_INPUT LARDER_RAY_STAGE LARDER_WORKSPACE LARDER_JUPYTER_BIND \
    LARDER_JUPYTER_PORT,\
    $(if $($(name)),,$(eval override $(name) := $(call from_env,$(name)))))

ENGINE := $(shell docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1 && echo yes)
DEMO_VOLUME := $(or $(LARDER_DATA_VOLUME),food11_demo)
# override: an empty value given on the command line is no value, too
override RUNNER := $(or $(RUNNER),$(if $(ENGINE),compose,host))
override ARM := $(or $(ARM),$(LARDER_ARM),imagefolder_local)
override LARDER_DATA_VOLUME := $(or $(LARDER_DATA_VOLUME),food11_local_baseline)
override LARDER_WDS_VOLUME := $(or $(LARDER_WDS_VOLUME),food11-webdataset_wds_out)
override LARDER_LIT_VOLUME := $(or $(LARDER_LIT_VOLUME),food11-litdata_lit_out)
override LARDER_RAY_STAGE := $(or $(LARDER_RAY_STAGE),shard)
override LARDER_HOME := $(or $(LARDER_HOME),.larder)
override LARDER_STORE_DIR := $(or $(LARDER_STORE_DIR),$(LARDER_HOME)/store)
override LARDER_MINIO_PORT := $(or $(LARDER_MINIO_PORT),9000)
override LARDER_MOUNT_DIR := $(or $(LARDER_MOUNT_DIR),$(LARDER_HOME)/mount)
# Without it, containers have a volume for that.
override LARDER_CACHE_DIR := $(or $(LARDER_CACHE_DIR),$(if $(filter host,$(RUNNER)),$(LARDER_HOME)/cache))
override LARDER_RESULTS := $(or $(LARDER_RESULTS),results)
override LARDER_WORKSPACE := $(or $(LARDER_WORKSPACE),workspace)
override LARDER_JUPYTER_BIND := $(or $(LARDER_JUPYTER_BIND),127.0.0.1)
override LARDER_JUPYTER_PORT := $(or $(LARDER_JUPYTER_PORT),8888)
JUPYTER_TOKEN := $(LARDER_HOME)/jupyter-token
LARDER_REVISION := $(or $(LARDER_REVISION),$(shell git describe --always --dirty --abbrev=12 2>/dev/null),unknown)
# The container's user must be able to write the records; root's id would go against the images' rule.
override LARDER_UID := $(or $(LARDER_UID),$(patsubst 0,1000,$(shell id -u)))
override LARDER_GID := $(or $(LARDER_GID),$(patsubst 0,1000,$(shell id -g)))
export LARDER_SOURCE LARDER_DATA_VOLUME LARDER_RESULTS LARDER_REVISION LARDER_UID LARDER_GID TORCH_INDEX_URL \
    LARDER_STORE_DIR LARDER_MINIO_PORT LARDER_MOUNT_DIR LARDER_CACHE_DIR LARDER_WDS_VOLUME LARDER_LIT_VOLUME \
    LARDER_WORKSPACE LARDER_JUPYTER_BIND LARDER_JUPYTER_PORT

# Whoever sets one of these has a store, and nothing of it is made up. Otherwise stages use the one of `make s3-up`.
STORE_SETTINGS := S3_ENDPOINT_URL S3_BUCKET RCLONE_CONTAINER AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY \
    AWS_SESSION_TOKEN AWS_PROFILE
STORE_IS_SET := $(sort $(foreach name,$(STORE_SETTINGS),$(if $(value $(name)),$(name))) $(shell [ -f .env ] && \
    sed -nE 's/^($(subst $() ,|,$(STORE_SETTINGS)))=["'\'']?[^"'\''[:space:]\#].*/\1/p' .env))
STORE_ENV := $(LARDER_HOME)/s3-$(RUNNER).env
# An empty variable is not set; handed on, it would hide what a file sets.
$(foreach name,$(STORE_SETTINGS),$(if $(value $(name)),,$(eval unexport $(name))))

STAGES := extract transform load shard optimize verify s3 mount bench jupyter
TIERS := unit integration $(if $(ENGINE)$(filter all,$(REQUIRE)),containers)
PYTHON := .venv/bin/python
HOST_VOLUMES := $(LARDER_HOME)/volumes
HOST_VOLUME := $(HOST_VOLUMES)/$(LARDER_DATA_VOLUME)
# What a packing pipeline, wds or lit, writes: its volume and its folder there.
volume_of = $(if $(filter wds,$(1)),$(LARDER_WDS_VOLUME),$(if $(filter lit,$(1)),$(LARDER_LIT_VOLUME),$(LARDER_DATA_VOLUME)))
folder_of = $(if $(filter wds,$(1)),Food-11-webdataset,$(if $(filter lit,$(1)),Food-11-litdata))

KNOWN := $(shell sed -nE 's/^\#?([A-Z0-9_]+)=.*/\1/p' .env.example)
GIVEN := $(filter LARDER_%,$(.VARIABLES)) $(shell [ -f .env ] && sed -nE 's/^(LARDER_[A-Za-z0-9_]+)=.*/\1/p' .env)
MISSPELT := $(sort $(filter-out $(KNOWN),$(GIVEN)))
$(if $(MISSPELT),$(error no such setting: $(MISSPELT); .env.example names all of them))
$(foreach name,LARDER_DATA_VOLUME LARDER_WDS_VOLUME LARDER_LIT_VOLUME,\
    $(if $(shell printf %s '$($(name))' | grep -E '^[A-Za-z0-9][A-Za-z0-9_.-]+$$'),,\
        $(error $(name)=$($(name)) is no name for a volume: letters, digits, _ . -)))

compose_file = compose/$(or $(if $(filter extract transform,$(1)),local),$(if $(filter shard,$(1)),wds),\
    $(if $(filter optimize,$(1)),lit),$(1)).yaml

# $(call stage,COMPOSE FILE,STAGE,STAGE'S FLAGS) runs a stage in the chosen runner. In a container, a local archive or
# folder is mounted read-only under its own name; the shell reads the name from the environment, so it may hold anything.
ifeq ($(RUNNER),compose)
store = store=(); $(if $(STORE_IS_SET),,if [ -f "$(STORE_ENV)" ]; then \
        store=($(if $(wildcard .env),--env-file .env) --env-file "$(STORE_ENV)"); \
    else export AWS_ACCESS_KEY_ID= AWS_SECRET_ACCESS_KEY=; fi;)
stage = $(store) mount=(); if [ "$(filter extract verify,$(2))" ] && [ -e "$$LARDER_SOURCE" ]; then \
        inside="/source/$$(basename -- "$$LARDER_SOURCE")"; \
        mount=(-v "$$(realpath -- "$$LARDER_SOURCE"):$$inside:ro" -e "LARDER_SOURCE=$$inside"); fi; \
    LARDER_RESULTS="$$(realpath -m -- "$$LARDER_RESULTS")" LARDER_MOUNT_DIR="$$(realpath -m -- "$$LARDER_MOUNT_DIR")" \
        LARDER_CACHE_DIR="$${LARDER_CACHE_DIR:+$$(realpath -m -- "$$LARDER_CACHE_DIR")}" \
        docker compose "$${store[@]}" -f compose/$(1).yaml run --rm --no-deps "$${mount[@]}" $(2) $(3)
else ifeq ($(RUNNER),host)
store = $(if $(STORE_IS_SET),,if [ -f "$(STORE_ENV)" ]; then set -a; . "$(STORE_ENV)"; set +a; fi;)
stage = $(store) LARDER_VOLUME_DIR="$(HOST_VOLUMES)/$(call volume_of,$(1))" \
        $(if $(filter wds lit,$(1)),LARDER_INPUT="$(or $(LARDER_INPUT),$(HOST_VOLUME)/Food-11)") \
        $(if $(filter verify,$(2)),LARDER_WDS_DIR="$(HOST_VOLUMES)/$(LARDER_WDS_VOLUME)" \
            LARDER_LIT_DIR="$(HOST_VOLUMES)/$(LARDER_LIT_VOLUME)") \
        $(if $(filter load,$(2)),$(if $(call folder_of,$(1)),LARDER_LOAD=$(call folder_of,$(1)))) FOOD11_DATA_DIR="$${FOOD11_DATA_DIR:-$(HOST_VOLUME)/Food-11}" \
        $(if $(wildcard .env),.venv/bin/dotenv -f .env run --no-override --) $(PYTHON) -m services.$(2) $(3)
else
$(error RUNNER=$(RUNNER) is neither compose nor host)
endif

.PHONY: help
help: ## print the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9_%-]*:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Settings are handed through: make etl-local LARDER_SOURCE=photos.zip (all of them: .env.example)"
	@echo "Runner: $(RUNNER)$(if $(ENGINE),, (no container engine answers)); RUNNER=compose|host chooses"

.PHONY: demo
demo: ## generated images, through the pipeline, to a measured table
	@$(MAKE) --no-print-directory etl-local bench ARM=$(ARM) LARDER_DATA_VOLUME=$(DEMO_VOLUME) \
	    LARDER_SOURCE="$(or $(if $(filter command environment,$(origin LARDER_SOURCE)),$(LARDER_SOURCE)),sample)"
	@printf 'The records lie in %s/\n' "$$(realpath -m -- "$$LARDER_RESULTS")"

.PHONY: etl-local
etl-local: ready-extract ready-transform ## LARDER_SOURCE -> tree in the volume food11_local_baseline
	@$(call stage,local,transform,--check)
	@$(call stage,local,extract)
	@$(call stage,local,transform)

.PHONY: etl-load
etl-load: ready-load ## the tree -> one object per image in s3://S3_BUCKET/Food-11/, every one verified
	@$(call stage,load,load)

.PHONY: etl-wds
etl-wds: ready-shard ready-load ## the tree -> WebDataset tar shards -> s3://S3_BUCKET/Food-11-webdataset/
	@$(if $(LARDER_DEST),,$(call stage,wds,load,--task reach))
	@$(call stage,wds,shard)
	@$(if $(LARDER_DEST),,$(call stage,wds,load))

.PHONY: etl-lit
etl-lit: ready-optimize ready-load ## the tree -> LitData chunks -> s3://S3_BUCKET/Food-11-litdata/
	@$(if $(LARDER_DEST),,$(call stage,lit,load,--task reach))
	@$(call stage,lit,optimize)
	@$(if $(LARDER_DEST),,$(call stage,lit,load))

# A volume that isn't there isn't made: in its place, the data volume is mounted, which has no shards and no chunks.
.PHONY: verify
verify: ready-verify ## follow the chain, archive to object, hash by hash (LARDER_VERIFY_SAMPLES=1000, or all)
	@$(if $(filter compose,$(RUNNER)),$(foreach kind,WDS LIT,docker volume inspect "$(LARDER_$(kind)_VOLUME)" \
	    >/dev/null 2>&1 || export VERIFY_$(kind)=baseline;)) $(call stage,verify,verify)

# Ray runs the packing stages on more machines than one; here, on containers of their own image.
.PHONY: ray-up
ray-up: $(if $(filter compose,$(RUNNER)),ready-$(LARDER_RAY_STAGE)) ## start a Ray cluster for LARDER_RAY_STAGE=shard (default) or optimize
ifeq ($(RUNNER),compose)
	@LARDER_RAY_STAGE=$(LARDER_RAY_STAGE) docker compose -f compose/ray.yaml up -d --wait >&2
	@echo "Next: make $(if $(filter optimize,$(LARDER_RAY_STAGE)),etl-lit,etl-wds) LARDER_ENGINE=ray RAY_ADDRESS=ray-head:6379"
else
	@echo "The host runner needs none: LARDER_ENGINE=ray starts one for the run. For a cluster of machines: .venv/bin/ray start"
endif

.PHONY: ray-down
ray-down: ## stop the Ray cluster
	@$(if $(filter compose,$(RUNNER)),docker compose -f compose/ray.yaml rm --stop --force ray-head ray-worker >&2)

.PHONY: bench
bench: ready-bench ## measure ARM (default imagefolder_local); records in results/
	@$(call results)
	@$(call stage,bench,bench,--arm $(ARM))

# Folders that a measuring container needs; what it writes to belongs to its user.
results = mkdir -p -- "$$LARDER_RESULTS" "$$LARDER_MOUNT_DIR" $${LARDER_CACHE_DIR:+"$$LARDER_CACHE_DIR"}; \
    if [ "$(RUNNER) $$(id -u)" = "compose 0" ]; then chown "$(LARDER_UID):$(LARDER_GID)" -- "$$LARDER_RESULTS" \
        $${LARDER_CACHE_DIR:+"$$LARDER_CACHE_DIR"}; fi

.PHONY: train
train: ready-bench ## train a small network through ARM: accuracy, and the share of time spent waiting for data
	@$(call results)
	@$(call stage,bench,bench,--task train --arm $(ARM))

.PHONY: jupyter
jupyter: jupyter-place jupyter-token ready-jupyter ## start JupyterLab beside the data, and print its address
	@$(call results)
ifeq ($(RUNNER),compose)
	@$(lab); docker compose "$${store[@]}" -f compose/jupyter.yaml up -d --wait jupyter >"$$log" 2>&1 || { \
	    if grep -q -e 'already allocated' -e 'already in use' "$$log"; then \
	        echo "error: LARDER_JUPYTER_PORT=$(LARDER_JUPYTER_PORT) is taken by another program" >&2; \
	        echo "  next step: stop that, or make jupyter LARDER_JUPYTER_PORT=8889" >&2; \
	    elif grep -q 'cannot assign requested address' "$$log"; then \
	        echo "error: LARDER_JUPYTER_BIND=$(LARDER_JUPYTER_BIND) is no address of this machine" >&2; \
	        echo "  next step: make jupyter LARDER_JUPYTER_BIND=127.0.0.1" >&2; \
	    else said="$$(docker compose "$${store[@]}" -f compose/jupyter.yaml logs --no-log-prefix --tail 15 jupyter)"; \
	        case "$$said" in *next?step*) printf '%s\n' "$$said";; \
	            *) printf '%s\n' "$$said"; tail -n 3 "$$log";; esac >&2; fi; \
	    docker compose "$${store[@]}" -f compose/jupyter.yaml rm --stop --force jupyter >/dev/null 2>&1; exit 1; }
	@$(lab); docker compose "$${store[@]}" -f compose/jupyter.yaml logs --no-log-prefix jupyter 2>/dev/null | grep '^jupyter: ' >&2 || true
	@$(MAKE) --no-print-directory --silent jupyter-url
else
	@$(call lab_task,up)
	@$(call lab_task,url)
endif

# What compose and mkdir would say in their words. A workspace that is empty is given to the container's user; one with
# something in it may be anybody's, and stays theirs.
.PHONY: jupyter-place
jupyter-place:
	@fail() { printf 'error: %s\n  next step: %s\n' "$$@" >&2; exit 1; }; byte='(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])'; \
	[[ "$$LARDER_JUPYTER_BIND" =~ ^$$byte(\.$$byte){3}$$ ]] || fail \
	    "LARDER_JUPYTER_BIND=$$LARDER_JUPYTER_BIND is no IPv4 address" "127.0.0.1 is for this machine alone"; \
	[[ "$$LARDER_JUPYTER_PORT" =~ ^[0-9]{1,5}$$ ]] && ((0 < 10#$$LARDER_JUPYTER_PORT && 10#$$LARDER_JUPYTER_PORT < 65536)) \
	    || fail "LARDER_JUPYTER_PORT=$$LARDER_JUPYTER_PORT is no port" "choose one from 1 to 65535; 8888 is the default"; \
	said="$$(LC_ALL=C mkdir -p -- "$$LARDER_WORKSPACE" 2>&1)" || { \
	    other="set LARDER_WORKSPACE to another folder"; place="$$(printf %q "$$LARDER_WORKSPACE")"; \
	    case "$$said" in *denied) other="sudo install -d -o $(LARDER_UID) -g $(LARDER_GID) $$place; or $$other";; \
	        *exists|*directory) other="move away what is in its place; or $$other";; esac; \
	    fail "the workspace $$LARDER_WORKSPACE can't be made: $${said##*: }" "$$other"; }; \
	if [ "$(RUNNER) $$(id -u) $$(ls -A --ignore=.gitkeep -- "$$LARDER_WORKSPACE")" = "compose 0 " ]; then \
	    chown --from=0 "$(LARDER_UID):$(LARDER_GID)" -- "$$LARDER_WORKSPACE"; fi

.PHONY: jupyter-url
jupyter-url: ## print the address of JupyterLab, with the token that opens it
ifeq ($(RUNNER),compose)
	@place="$$(docker compose -f compose/jupyter.yaml port jupyter 8888 2>/dev/null)" || { \
	    echo "JupyterLab isn't running" >&2; echo "  next step: make jupyter" >&2; exit 1; }; \
	echo "http://$${place/#0.0.0.0:/127.0.0.1:}/lab?token=$$(cat -- "$(JUPYTER_TOKEN)")"
else
	@$(call lab_task,url)
endif

.PHONY: jupyter-logs
jupyter-logs: ## print what JupyterLab has logged
	@$(if $(filter compose,$(RUNNER)),$(lab); docker compose "$${store[@]}" -f compose/jupyter.yaml logs --no-log-prefix jupyter,\
	    $(call lab_task,logs))

.PHONY: jupyter-down
jupyter-down: ## stop JupyterLab; the workspace stays
	@$(if $(filter compose,$(RUNNER)),$(lab); docker compose "$${store[@]}" -f compose/jupyter.yaml rm --stop --force jupyter >&2,\
	    $(call lab_task,down))

# The token is made up once. printf is the shell's own: no process shows it.
.PHONY: jupyter-token
jupyter-token:
	@mkdir -p -- "$(LARDER_HOME)"; umask 077; [ -s "$(JUPYTER_TOKEN)" ] || { \
	    printf '%s\n' "$$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >"$(JUPYTER_TOKEN).new" && \
	    mv -- "$(JUPYTER_TOKEN).new" "$(JUPYTER_TOKEN)"; }
	@if [ "$(RUNNER) $$(id -u)" = "compose 0" ]; then chown "$(LARDER_UID):$(LARDER_GID)" -- "$(JUPYTER_TOKEN)"; fi

# compose's environment for JupyterLab: the store, folders as absolute paths, and whether it can see later mounts, too.
lab = $(store) log="$(LARDER_HOME)/jupyter-up.log"; $(foreach name,LARDER_RESULTS LARDER_MOUNT_DIR LARDER_WORKSPACE,\
    export $(name)="$$(realpath -m -- "$$$(name)")";) \
    export LARDER_CACHE_DIR="$${LARDER_CACHE_DIR:+$$(realpath -m -- "$$LARDER_CACHE_DIR")}" \
    LARDER_JUPYTER_TOKEN_FILE="$$(realpath -m -- "$(JUPYTER_TOKEN)")" MOUNT_PROPAGATION="$$(findmnt -n -o PROPAGATION \
        -T "$$LARDER_MOUNT_DIR" | grep -q -e shared -e slave && echo rslave)"
lab_task = LARDER_JUPYTER_TOKEN_FILE="$(JUPYTER_TOKEN)" LARDER_JUPYTER_DIR="$(LARDER_HOME)/jupyter"; \
    export LARDER_JUPYTER_TOKEN_FILE LARDER_JUPYTER_DIR; $(call stage,jupyter,jupyter,--task $(1))

.PHONY: s3-up
s3-up: s3-keys ready-s3 ## start a store on this machine (MinIO; RUNNER=host: SeaweedFS) and make its bucket
ifeq ($(RUNNER),compose)
	@$(store) start=(docker compose "$${store[@]}" -f compose/s3.yaml); \
	    "$${start[@]}" up -d --wait minio >&2 || { "$${start[@]}" logs --tail 9 minio >&2; exit 1; }
	@$(call stage,s3,s3,--task bucket)
	@echo "The store: http://127.0.0.1:$(LARDER_MINIO_PORT) for this machine, http://minio:9000 for the project's containers"
else
	@$(call stage,s3,s3,--task up)
endif
	@$(if $(STORE_IS_SET),,echo "Its address, bucket and keys: $(STORE_ENV), which make uses by itself")
	@$(if $(filter compose,$(RUNNER)),$(if $(STORE_IS_SET),,echo "Without make: docker compose --env-file $(STORE_ENV)" \
	    "-f compose/load.yaml run --rm load"))
	@echo "Next: make s3-check, or make etl-load"

.PHONY: s3-down
s3-down: $(if $(filter host,$(RUNNER)),ready-s3) ## stop the store on this machine; its data stay
	@$(if $(filter compose,$(RUNNER)),AWS_ACCESS_KEY_ID= docker compose -f compose/s3.yaml rm --stop --force minio >&2,\
	    $(call stage,s3,s3,--task down))

.PHONY: s3-check
s3-check: ready-s3 ## diagnose the store of the settings: reach, keys, clock, bucket, writing, parts, ranges, speed
	@$(call stage,s3,s3,--task check)

.PHONY: s3-bucket
s3-bucket: ready-s3 ## make the bucket in the store of the settings (BUCKET=name: another one)
	@$(call stage,s3,s3,--task bucket $(if $(BUCKET),--bucket "$(BUCKET)"))

# Keys are made up once, and only when no setting of a store is there. printf is the shell's own: no process shows them.
.PHONY: s3-keys
s3-keys: random = $$(od -An -N$(1) -tx1 /dev/urandom | tr -d ' \n')
s3-keys:
ifeq ($(STORE_IS_SET),)
	@mkdir -p -- "$(LARDER_HOME)"; umask 077; [ -f "$(STORE_ENV)" ] || { \
	    printf '%s=%s\n' S3_ENDPOINT_URL $(if $(filter host,$(RUNNER)),http://127.0.0.1:8333,http://minio:9000) \
	        S3_BUCKET larder AWS_ACCESS_KEY_ID "larder$(call random,7)" \
	        AWS_SECRET_ACCESS_KEY "$(call random,20)" >"$(STORE_ENV).new" && \
	    mv -- "$(STORE_ENV).new" "$(STORE_ENV)"; }
else
	@$(if $(filter host http://minio:9000,$(RUNNER) $(or $(S3_ENDPOINT_URL),$(call from_env,S3_ENDPOINT_URL))),, \
	    echo "The store's settings are yours ($(STORE_IS_SET)), and not those of the store that s3-up starts." >&2; \
	    echo "  next step: unset them, and s3-up makes its own; or set S3_ENDPOINT_URL=http://minio:9000, too" >&2; exit 1)
endif

.PHONY: mount
mount: ready-mount ## the bucket as a read-only folder in LARDER_MOUNT_DIR (default .larder/mount)
ifeq ($(RUNNER),compose)
	@mkdir -p -- "$$LARDER_MOUNT_DIR"; export LARDER_MOUNT_DIR="$$(realpath -- "$$LARDER_MOUNT_DIR")"; \
	case "$$(findmnt -n -o PROPAGATION -T "$$LARDER_MOUNT_DIR" || echo shared)" in *shared*) ;; *) \
	    echo "error: what a container mounts in $$LARDER_MOUNT_DIR stays in it: the folder lies on no shared mount" >&2; \
	    echo "  next step: sudo mount --make-rshared $$(findmnt -n -o TARGET -T "$$LARDER_MOUNT_DIR") (until the next" \
	        "boot), or RUNNER=host" >&2; exit 1;; esac; \
	$(store) start=(docker compose "$${store[@]}" -f compose/mount.yaml); "$${start[@]}" up -d --wait mount >&2 || { \
	    "$${start[@]}" logs --no-log-prefix mount >&2; "$${start[@]}" rm --stop --force mount >&2; exit 1; }; \
	inside="$$(docker logs "$$("$${start[@]}" ps -q mount)" 2>/dev/null | tail -n 1)"; \
	printf '%s\n' "$$LARDER_MOUNT_DIR$${inside#/mount}"
else
	@$(call stage,mount,mount,--detach)
endif

.PHONY: unmount
unmount: $(if $(wildcard $(LARDER_MOUNT_DIR)/.),ready-mount,runner) ## take the mount away, also a dead one
	@$(if $(filter compose,$(RUNNER)),docker compose -f compose/mount.yaml rm --stop --force mount >&2)
	@if [ -d "$$LARDER_MOUNT_DIR" ]; then $(call stage,mount,mount,--unmount); \
	    else echo "nothing is mounted in $$LARDER_MOUNT_DIR" >&2; fi

.PHONY: build
build: $(STAGES:%=build-%) ## build every stage's image

build-%: ## build one stage's image: build-extract, build-load, build-bench, …
	@AWS_ACCESS_KEY_ID= docker compose -f $(call compose_file,$*) --progress $(if $(CI),plain,auto) build $*

# What a stage needs before it runs; stdout is for results. An image that is there is brought up to date silently.
ready-%: runner
	@if [ $(RUNNER) = host ]; then $(MAKE) --no-print-directory --silent venv >&2; \
	elif docker image inspect larder-$*:0.1.0 >/dev/null 2>&1; then \
	    AWS_ACCESS_KEY_ID= docker compose -f $(call compose_file,$*) build --quiet $* >&2; \
	else $(MAKE) --no-print-directory build-$* >&2; fi

.PHONY: runner
runner:
	@echo "runner: $(RUNNER)$(if $(filter host,$(RUNNER)), (processes in .venv/, data under $(LARDER_HOME)/))" >&2
	@$(if $(filter host,$(RUNNER)),mkdir -p -- "$(HOST_VOLUME)" "$(HOST_VOLUMES)/$(LARDER_WDS_VOLUME)" \
	    "$(HOST_VOLUMES)/$(LARDER_LIT_VOLUME)")

.PHONY: venv
venv: .venv/ready ## make the virtual environment of the host runner and the tests
.venv/ready: requirements-dev.txt services/bench/torch.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "larder needs Python 3.11 or newer; python3 is " + sys.version)'
	@python3 -c 'import ensurepip' || { echo "python3 lacks venv: install the package python3-venv" >&2; exit 1; }
	@echo "making .venv/, once: tools first, then torch (about 3 GB; TORCH_INDEX_URL may name an index of CPU wheels)" >&2
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --require-hashes --no-deps -r requirements-dev.txt
	$(PYTHON) -m pip install $(if $(CI),--quiet) $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) \
	    -r services/bench/torch.txt
	@touch $@

# A process for each core, since most tests wait for servers.
PYTEST = $(PYTHON) -m pytest --numprocesses $(or $(TEST_PROCESSES),auto) --dist $(or $(DIST),worksteal)

.PHONY: test
test: $(if $(filter containers,$(TIERS)),build) venv ## run every tier of tests that this machine can run
	@$(if $(filter containers,$(TIERS)),,echo "left out: tests/containers, since no container engine answers (docker info)" >&2)
	@$(if $(filter all,$(REQUIRE)),,echo "left out: tests/openstack, which takes a quarter of an hour (make test-openstack)" >&2)
	REQUIRE=$(REQUIRE) $(PYTEST) $(TIERS:%=tests/%) $(PYTEST_ARGS)
	$(if $(filter all,$(REQUIRE)),$(MAKE) test-openstack)

# The tests of a file share a machine; all files share the cloud.
test-openstack: DIST = loadfile --no-loadscope-reorder
test-%: venv ## run one tier: test-unit, test-integration, test-openstack, test-containers (after make build)
	REQUIRE=all $(PYTEST) tests/$* $(PYTEST_ARGS)

.PHONY: lint
lint: venv ## ruff, mypy --strict, and whether generated docs are fresh
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	$(PYTHON) -m docs.generate --check

.PHONY: docs
docs: venv ## write .env.example and docs/settings.md from the code
	$(PYTHON) -m docs.generate

.PHONY: benchmarks
benchmarks: venv ## measure the stages against their yardsticks; records in results/benchmarks/
	$(PYTHON) -m benchmarks

COMPILE := .venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-header --override services/overrides.txt
.PHONY: lock
lock: venv ## renew the hash-locked requirements
	$(COMPILE) requirements-dev.in -o requirements-dev.txt
	for stage in $(STAGES); do $(COMPILE) -c requirements-dev.txt services/$$stage/requirements.in \
	    -o services/$$stage/requirements.txt; done

.PHONY: clean-local
clean-local: ## remove the data volume, after asking (YES=1 does not ask)
	@printf 'Remove the %s volume %s with all its data? [y/N] ' $(RUNNER) "$(LARDER_DATA_VOLUME)" >&2; \
	$(if $(YES),answer=y; echo y >&2,read -r answer || true); \
	[ "$$answer" = y ] || { echo "kept" >&2; exit 1; }; \
	$(if $(filter compose,$(RUNNER)),docker volume rm "$(LARDER_DATA_VOLUME)",rm -rf -- "$(HOST_VOLUME)")

.PHONY: clean
clean: clean-wds clean-lit ## remove the volumes of shards and of chunks, which are in the store

.PHONY: clean-wds
clean-wds: ready-load ## remove the volume of shards, after looking that the store has them (YES=1: without asking)
	@$(call remove_staged,wds)

.PHONY: clean-lit
clean-lit: ready-load ## remove the volume of chunks, after looking that the store has them (YES=1: without asking)
	@$(call remove_staged,lit)

# What is about to be the only copy isn't taken on trust: LARDER_VERIFY_REMOTE may ask for more here, and not for less.
CLEAN_VERIFIES_BY = $(or $(filter read,$(or $(LARDER_VERIFY_REMOTE),$(call from_env,LARDER_VERIFY_REMOTE))),etag)

# $(call remove_staged,PIPELINE) removes what wds or lit has staged, unless it is in use or the store lacks any of it.
define remove_staged
volume=$(call volume_of,$(1)); \
$(if $(filter compose,$(RUNNER)),docker volume inspect "$$volume" >/dev/null 2>&1,[ -e "$(HOST_VOLUMES)/$$volume/$(call folder_of,$(1))" ]) \
    || { echo "nothing to remove: no $(RUNNER) volume $$volume with data" >&2; exit 0; }; \
users="$$($(if $(filter compose,$(RUNNER)),docker ps --all --filter "volume=$$volume" --format '{{.Names}} ({{.Status}})'))"; \
[ -z "$$users" ] || { printf 'error: containers use the volume %s:\n%s\n  next step: stop and remove them, then run this again\n' \
    "$$volume" "$$users" >&2; exit 1; }; \
$(if $(filter compose,$(RUNNER)),docker run --rm -v "$$volume:/mnt:ro" --entrypoint sh larder-load:0.1.0 \
        -c 'test -e "/mnt/$$1" || test -e "/mnt/.larder/$$1"' sh $(call folder_of,$(1)) \
    || { docker volume rm "$$volume" >/dev/null && echo "removed $$volume: it held nothing" >&2; exit; };) \
($(call stage,$(1),load,--task check --verify-remote $(CLEAN_VERIFIES_BY))) || { \
    echo "kept $$volume: only what is loaded and verified is removed (docker volume rm removes anything)" >&2; exit 1; }; \
printf 'Remove the $(RUNNER) volume %s? The store has all of it, verified just now. [y/N] ' "$$volume" >&2; \
$(if $(YES),answer=y; echo y >&2,read -r answer || true); \
[ "$$answer" = y ] || { echo "kept" >&2; exit 1; }; \
$(if $(filter compose,$(RUNNER)),docker volume rm "$$volume",rm -rf -- "$(HOST_VOLUMES)/$$volume")
endef

.PHONY: clean-s3
clean-s3: $(if $(filter host,$(RUNNER)),ready-s3) ## remove the store on this machine with its data and keys, after asking (YES=1: not)
	@printf 'Remove the %s store with all its objects, and its keys? [y/N] ' $(RUNNER) >&2; \
	$(if $(YES),answer=y; echo y >&2,read -r answer || true); \
	[ "$$answer" = y ] || { echo "kept" >&2; exit 1; }
ifeq ($(RUNNER),compose)
	@AWS_ACCESS_KEY_ID= docker compose -f compose/s3.yaml down --volumes >&2
else
	@$(call stage,s3,s3,--task down)
	@cd -- "$(LARDER_STORE_DIR)" && rm -rf data log pid lock
endif
	@rm -f -- "$(STORE_ENV)"
