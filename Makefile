# Needs Python 3.11 or newer, make and a package index; each target makes the
# virtual environment it needs. ARGS goes to the program that is run:
#     make serve ARGS='--listen tcp:7000 --handler mypkg.echo:Echo'
#     make test ARGS='-k deadlines'
# Another interpreter: make clean, then make test PYTHON=python3.13

PYTHON ?= python3
DEV = .venv-dev/bin/python -m

.PHONY: serve test lint types news api docs check bench moves release clean

serve: .venv/.made
	.venv/bin/twistd --nodaemon --pidfile= sockserve $(ARGS)

test: .venv-dev/.made
	$(DEV) pytest $(ARGS)

lint: .venv-dev/.made
	$(DEV) ruff check
	$(DEV) ruff format --check

types: .venv-dev/.made
	$(DEV) mypy

news: .venv-dev/.made
	$(DEV) towncrier build --draft --version next >/dev/null

api: .venv-dev/.made
	rm -rf build/api
	$(DEV) pydoctor

docs: news api
	$(DEV) pytest tests/docs/test_listings.py

check: lint types news api test

bench: .venv-dev/.made
	$(DEV) benchmarks $(ARGS)

moves: .venv-dev/.made
	$(DEV) benchmarks.moves $(ARGS)

release: .venv-dev/.made
	rm -rf dist
	.venv-dev/bin/python .ci/release.py dist

clean:
	rm -rf .venv .venv-dev build dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv-dev/.made: EXTRAS = [dev]
.venv/.made .venv-dev/.made: pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || \
	    { echo "sockserve: no $(PYTHON) here; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit("sockserve needs \
	Python 3.11 or newer, and $(PYTHON) is %d.%d; name another: make PYTHON=/path/to/python3" \
	% sys.version_info[:2])'
	rm -rf $(@D)
	"$(PYTHON)" -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --editable '.$(EXTRAS)'
	@touch $@
