# Needs Python 3.11 or newer, make and a package index; each target makes the
# virtual environment it needs. ARGS goes to the program that is run:
#     make serve ARGS='--listen tcp:7000 --handler mypkg.echo:Echo'
#     make test ARGS='-k deadlines'
#     make test ARGS='-n0 --pdb tests/core'
# Another interpreter gets an environment of its own, here .venv-dev-3.13:
#     make test PYTHON=python3.13

PYTHON ?= python3
VENV = .venv-dev$(patsubst python%,-%,$(filter-out python python3,$(notdir $(PYTHON))))
DEV = $(VENV)/bin/python -m

# Without it, each of pytest's workers would compile all tests in each run.
unexport PYTHONDONTWRITEBYTECODE
# Tests mostly wait, so more of them run side by side than there are cores.
TEST = pytest -n 8 --dist load --maxschedchunk 1
# Those in memory do not, and are the ones that are not in or below these.
REAL = differential django_app docs examples integration programs reactors sql stdlib typing \
    run/test_random_configurations.py test_packaging.py
MEMORY = pytest -n 2 --dist load $(REAL:%=--ignore=tests/%)
# Some of these try many inputs.
RANDOM = http/h1/test_properties.py streams/test_properties.py sunrpc/xdr/test_properties.py
QUICK = $(MEMORY) $(RANDOM:%=--ignore=tests/%)
# What is tested branch by branch.
PURE = */core/statistics.py,*/http/h1/*,*/http/files/ranges.py,*/http/files/targets.py,*/sunrpc/xdr/*,*/sunrpc/xdrlib.py

# Twisted's own tests, on the uvloop reactor.
SUITES = twisted.internet.test twisted.test.test_tcp twisted.test.test_ssl twisted.test.test_unix \
    twisted.test.test_udp twisted.test.test_process twisted.test.test_internet twisted.protocols \
    twisted.web twisted.conch

.PHONY: serve test quick oldest reactor-suites coverage lint types news reference api site docs check \
    bench moves release clean

serve: .venv/.made
	.venv/bin/sockserve $(ARGS)

test: $(VENV)/.made
	$(DEV) $(TEST) $(ARGS)

quick: $(VENV)/.made
	$(DEV) $(QUICK) $(ARGS)

oldest: .venv-dev-oldest/.made
	.venv-dev-oldest/bin/python -m $(QUICK) $(ARGS)

reactor-suites: $(VENV)/.made
	mkdir -p build
	LC_ALL=C PYTHONUTF8=1 $(DEV) tests.reactors.run_suites --temp-directory=build/trial \
	    $(or $(ARGS),$(SUITES))

coverage: $(VENV)/.made
	$(DEV) coverage erase
	$(DEV) coverage run -m $(QUICK) $(ARGS)
	$(DEV) coverage combine --quiet
	$(DEV) coverage report --skip-covered
	$(DEV) coverage report --show-missing --fail-under=100 --include='$(PURE)'

lint: $(VENV)/.made
	$(DEV) ruff check
	$(DEV) ruff format --check

types: $(VENV)/.made
	$(DEV) mypy

news: $(VENV)/.made
	$(DEV) towncrier build --draft --version next >/dev/null

reference: $(VENV)/.made
	$(VENV)/bin/python .ci/reference.py

api: $(VENV)/.made
	rm -rf build/api
	PYTHONPATH=.ci $(DEV) pydoctor

site: api
	NO_MKDOCS_2_WARNING=1 $(DEV) mkdocs build --quiet

docs: news site
	$(DEV) $(TEST) tests/docs

check: lint types news site test coverage release

bench: $(VENV)/.made
	$(DEV) benchmarks $(ARGS)

moves: $(VENV)/.made
	$(DEV) benchmarks.moves $(ARGS)

release: $(VENV)/.made
	rm -rf dist
	$(VENV)/bin/python .ci/release.py dist

clean:
	rm -rf .venv .venv-dev* build dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made .venv-dev-oldest/.made: EXTRAS = [dev]
# Each dependency that names its oldest version, in that.
.venv-dev-oldest/.made: PINS = $(shell sed -n '/^dependencies/,/^]/ s/^ *"\(.*\)>=\(.*\)",$$/"\1==\2"/p' pyproject.toml)
$(sort .venv/.made $(VENV)/.made .venv-dev-oldest/.made): pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || \
	    { echo "sockserve: no $(PYTHON) here; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit("sockserve needs \
	Python 3.11 or newer, and $(PYTHON) is %d.%d; name another: make PYTHON=/path/to/python3" \
	% sys.version_info[:2])'
	rm -rf $(@D)
	"$(PYTHON)" -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --editable '.$(EXTRAS)' $(PINS)
	@touch $@
