# Needs GNU make 4, a POSIX sh and Python 3.11 to 3.13. `make` alone lists the targets.
.DELETE_ON_ERROR:
.NOTPARALLEL:
.ONESHELL:
.SHELLFLAGS = -ec
.PHONY: help venv test-venv test faults soak lint bench train lock
export PIP_DISABLE_PIP_VERSION_CHECK = 1

ARGS =
PYTHON ?=
RUN = first
SOAK_MINUTES = 45
TESTS = tests
# Processes that run tests: one per core, at most 4, because each takes up to 2.5 GB.
WORKERS = $$(cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 4 ? cores : 4)))

# The version of the interpreter $(1), as 3.12. A shim may exist and still not run.
print_version = import sys; print("%d.%d" % sys.version_info[:2])
version = $$($(1) -c '$(print_version)' 2>/dev/null || echo does not run)

# Locks the installation: a second make waits for the first.
wait = exec 9<Makefile; flock 9 2>/dev/null || true

# Installs requirements/$(1).txt unless the stamp file of this lock exists. .venv-unfinished marks an
# interrupted installation, because pip would accept a partially copied package.
define install
	stamp=.venv/.installed-$(1)-$$(sha256sum <requirements/$(1).txt | cut -c1-12)
	if [ ! -e $$stamp ]; then
		touch .venv-unfinished
		.venv/bin/python -m pip install --require-hashes -r requirements/$(1).txt
		rm -f .venv/.installed-$(1)-*
		touch $$stamp
		rm .venv-unfinished
	fi
endef

help:
	@echo 'Targets:'
	awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile
	echo
	echo 'Variables:'
	echo '  PYTHON=...   interpreter for a new .venv (else python3, or python3.13 to python3.11)'
	echo '  TESTS=...    test files or folders to run (else tests)'
	echo '  WORKERS=...  processes that run tests (else one per core, at most 4)'
	echo '  SOAK_MINUTES=...   duration of make soak (else 45); its report is soak.json'
	echo '  RUN=...      name of the run to train (else first); an existing run is resumed'
	echo '  ARGS=...     more flags for make train or make bench'

venv: ## create .venv and install the locked packages, with CUDA if there is a GPU
	@$(wait)
	lock=cpu
	if gpus=$$(nvidia-smi -L 2>/dev/null) && echo "$$gpus" | grep -q '^GPU'; then lock=gpu; fi
	# The GPU build also works without a GPU: a login node keeps what a GPU node installed.
	if ls .venv/.installed-gpu-* >/dev/null 2>&1; then lock=gpu; fi
	recreate=
	case $(call version,.venv/bin/python) in 3.11|3.12|3.13) ;; *) recreate=yes ;; esac
	.venv/bin/python -c 'import pip' 2>/dev/null || recreate=yes
	if [ -e .venv-unfinished ]; then recreate=yes; fi
	if [ $$lock = gpu ] && ls .venv/.installed-cpu-* >/dev/null 2>&1; then recreate=yes; fi
	if [ -n "$$recreate" ]; then
		tried=
		for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do
			found=$(call version,$$python)
			case $$found in 3.11|3.12|3.13)
				if $$python -c 'import ensurepip, venv' 2>/dev/null; then break; fi
				found="$$found without ensurepip, on Debian and Ubuntu: apt install python$$found-venv"
			esac
			tried="$$tried, $$python ($$found)"
			python=
		done
		if [ -z "$$python" ]; then
			echo "make venv: no usable Python 3.11 to 3.13, set one with PYTHON=; tried$${tried#,}" >&2
			exit 1
		fi
		echo "creating .venv with $$python ($$found)"
		touch .venv-unfinished
		$$python -m venv --clear .venv
	fi
	$(call install,$$lock)

test-venv: venv ## install what the tests need
	@$(wait)
	$(call install,test)

test: test-venv ## run the tests
	@.venv/bin/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

faults: test-venv ## run the long tests and the long fuzzers (hours)
	@.venv/bin/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m faults $(TESTS)

soak: test-venv ## kill, signal and damage a training for SOAK_MINUTES and check that it recovers
	@.venv/bin/python -m tests.soak --minutes=$(SOAK_MINUTES) --json=soak.json

lint: test-venv ## check style, formatting, types and English
	@.venv/bin/python -m ruff check
	.venv/bin/python -m ruff format --check
	.venv/bin/python -m mypy
	.venv/bin/python -m tests.prose

bench: test-venv ## run the missing benchmarks and write benchmarks/RESULTS.md
	@.venv/bin/python -m benchmarks.run_all $(ARGS)

train: venv ## train ResNetV2-50 on the built-in data set, then evaluate it on ten crops
	.venv/bin/python main.py --mode=train --model=resnetv2_50 --mixed_precision \
		--run_name=$(RUN) --crops=1 $(if $(findstring --data,$(ARGS)),,--dataset=shapes) $(ARGS)
	.venv/bin/python main.py --mode=eval --ckpt=checkpoints/$(RUN)

lock: ## update the hashed requirements/*.txt from requirements/*.in (needs uv)
	@for lock in cpu gpu test export parquet array_record notebook; do
		uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
			requirements/$$lock.in -o requirements/$$lock.txt
	done
