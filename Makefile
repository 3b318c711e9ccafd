# make demo   installs into .venv, segments two synthetic CTs and writes the masks and a picture to demo/
# make test   installs into .venv, checks style and types, and runs the tests
# make test-label, make test-deploy
#             run MONAI Label (8 GB) and MONAI Deploy (3.4 GB) with the bundle, each in an environment of its own
#
# make release SOURCE=https://github.com/NAME/REPOSITORY
#             builds sdist and wheel of what is committed into dist/, checks both and uploads nothing; SOURCE is where the
#             index's page finds the pictures and pages of README.md
#
# PYTHON is the interpreter that makes .venv, TORCH what pip is given to install PyTorch: by default the small CPU build (or
# PyPI's build, where that index cannot be reached). For an NVIDIA GPU, `rm -rf .venv; make TORCH=torch==2.13.0 demo` takes
# PyPI's CUDA build; for another CUDA, put PyTorch's own index for it in place of `cpu` below.
PYTHON ?= python3
TORCH ?= torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-label test-deploy release lint format clean

demo: .venv/.installed
	@cd ravnet_bundle && OMP_WAIT_POLICY=passive ../$(BIN)/python -m scripts.batch.demo ../demo  # as ravnet sets it

test: lint
	@$(BIN)/python -m pytest -q -rs --durations=10

test-label: .venv-label/.installed
	@.venv-label/bin/python tests/ecosystem/label.py

test-deploy: .venv-deploy/.installed
	@.venv-deploy/bin/python tests/ecosystem/deploy.py

release: .venv/.installed
	@test -n "$(SOURCE)" || { echo "Say where the repository is: make release SOURCE=https://github.com/NAME/REPOSITORY"; exit 1; }
	@rm -rf build dist && mkdir -p build/committed && git archive HEAD | tar x -C build/committed
	@cd build/committed && sed -i -E 's#!\[([^]]*)\]\(([^):]+)\)#![\1]($(SOURCE)/raw/HEAD/\2)#g; s#\]\(([^):]+)\)#]($(SOURCE)/blob/HEAD/\1)#g' README.md
	@cd build/committed && sed -i 's#^\[project.urls\].*#&\nSource = "$(SOURCE)"#' pyproject.toml
	@$(BIN)/python -m build --outdir dist build/committed > build/log || { tail -20 build/log; exit 1; }
	@$(BIN)/python -m twine check --strict dist/*
	@test $$(stat -c %s dist/*.whl) -le 17000000 || { echo "The wheel is over 17 MB."; exit 1; }
	@echo "The sdist's tests ..."
	@mkdir build/sdist && tar xf dist/*.tar.gz -C build/sdist --strip-components 1
	@cd build/sdist && ../../$(BIN)/python -m pytest -q -p no:cacheprovider --collect-only > ../collected || { tail ../collected; exit 1; }
	@cd build/sdist && ../../$(BIN)/python -m pytest -q -p no:cacheprovider tests/test_zoo.py tests/test_grid.py tests/reading/test_keys.py
	@echo "The wheel in a clean environment ..."
	@$(PYTHON) -m venv build/venv
	@build/venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 --no-deps $(TORCH)
	@build/venv/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	@cd build && venv/bin/python -c "from ravnet_bundle.scripts.phantom import make_phantom as make, save_phantom as save; \
		save(make(shape=(128, 128, 16), spacing=(3, 3, 10)), 'ct.nii.gz')" \
		&& venv/bin/ravnet segment ct.nii.gz -o out
	@ls -l dist

lint: .venv/.installed
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "The files' format differs: run 'make format'."; exit 1; }
	@$(BIN)/mypy --no-error-summary

format: .venv/.installed
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

# Leaves .venv*; `rm -rf .venv` to install anew.
clean:
	@rm -rf demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	@find ravnet_bundle tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

.venv/.torch: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
		{ echo "Python 3.10 to 3.13 is needed, and $(PYTHON) is not: choose one with 'make PYTHON=python3.11 ...'."; exit 1; }
	@echo "Installing PyTorch into .venv ($(TORCH)) ..."
	@$(PYTHON) -m venv .venv
# Alone and without what it depends on, which the next step brings: only PyTorch itself is looked for on the extra index.
	@$(PIP) --retries 1 --no-deps $(TORCH)
	@touch $@

.venv/.installed: .venv/.torch pyproject.toml setup.cfg
	@echo "Installing what pyproject.toml lists into .venv ..."
	@$(PIP) --editable '.[tested,dev]'
	@touch $@

.venv-label/.installed: tests/ecosystem/label.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))' || \
		{ echo "MONAI Label needs Python 3.10 or 3.11: 'make PYTHON=python3.11 test-label'."; exit 1; }
	@$(PYTHON) -m venv .venv-label
	@.venv-label/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.venv-deploy/.installed: tests/ecosystem/map/requirements.txt
	@$(PYTHON) -m venv .venv-deploy
	@.venv-deploy/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 --no-deps $(TORCH)
	@.venv-deploy/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
