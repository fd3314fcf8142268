"""
Measure sockserve beside its peers and print one table.

The servers of one work take turns (A, B, C, A, B, C, ...) and a ratio is the median of the
ratios within a round: machines are noisy, and only ratios mean something on another one.
"""

import argparse
import importlib.util
import platform
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from functools import partial
from importlib.metadata import version
from statistics import median

from benchmarks import harness, http_loads, row_loads
from benchmarks.servers.answers import GREETING
from benchmarks.table import BOUND_BY_TIMERS, FIGURES, OPTIONAL, PROGRAMS, QUICK, ROWS, WORKS

TITLES = {(row.work, row.name): row.title for row in ROWS}
NEEDS = {need for needs in OPTIONAL.values() for need in needs}
DISTRIBUTIONS = sorted(
    each for each in NEEDS - PROGRAMS - {"xdrlib"} if each.split(".")[0] != "sockserve"
)
QUICK_SECONDS = 0.5
SBIN = "/usr/sbin"  # where Debian has nginx, and where only root looks


def installed(need):
    if need in PROGRAMS:
        return bool(shutil.which(need) or shutil.which(need, path=SBIN))
    try:
        return importlib.util.find_spec(need) is not None
    except ModuleNotFoundError:  # nor the package that it is in
        return False


def complete(name):
    words = name.split("-")
    return all(installed(need) for word in words for need in OPTIONAL.get(word, []))


def words(row):
    """What selects it: its work, the kind of its work, its server."""
    return {row.work, row.work.split("-")[0], row.name}


def select(given):
    """The rows of all works and servers that are named; of all works, or servers, if none is."""
    servers = {row.name for row in ROWS} & {*given}
    works = {*given} - servers
    return [
        row
        for row in ROWS
        if (not works or words(row) & works) and (not servers or row.name in servers)
    ]


def measure(rows, rounds, measures):
    """The results of each contestant of a work, one a round, and why the others have none."""
    results = defaultdict(list)
    contestants = list(dict.fromkeys((row.work, row.name) for row in rows))
    failures = {each: "not installed" for each in contestants if not complete(each[1])}
    for work, function in measures.items():
        for turn in range(rounds):
            for each in [each for each in contestants if each[0] == work]:
                if each in failures:
                    continue
                print(f"{work} {turn + 1}/{rounds}: {each[1]}", file=sys.stderr)
                try:
                    results[each].append(function(each[1]))
                except harness.Failed as error:
                    failures[each] = "failed"
                    print(f"{each[1]} failed: {error}", file=sys.stderr)
    return results, failures


def target_of(row, form):
    targets = {
        "≤ {}": row.limit and form.format(row.limit),
        "≥ {}": row.least and form.format(row.least),
        "≥ {} ×": row.at_least,
        "≤ {} ×": row.at_most,
        "aim {} ×": row.aim,
    }
    return ", ".join(words.format(target) for words, target in targets.items() if target)


def meets(row, value, ratio):
    if row.limit is not None:
        return value <= row.limit
    if row.least is not None:
        return value >= row.least
    return ratio >= row.at_least if row.at_least is not None else ratio <= row.at_most


def is_relative(row):
    return row.at_least is not None or row.at_most is not None


def is_judged(row):
    """Whether it can be missed: an aim cannot."""
    return is_relative(row) or row.limit is not None or row.least is not None


def compare(row, figure, ours, theirs):
    """
    The ratio that a target is judged by, and all that there is to say of it.

    Where the rounds do not agree about the rate, the time that a request takes decides; but not
    beside a server that is not bound by the processor.
    """
    pairs = [*zip(ours, theirs, strict=True)]
    ratios = [our[figure] / their[figure] for our, their in pairs]
    title = TITLES[row.work, row.against]
    said = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) × {title}"
    if figure != "per_s":
        return median(ratios), said
    by_cpu = median(their["cpu_us"] / our["cpu_us"] for our, their in pairs)
    verdicts = {meets(row, None, ratio) for ratio in ratios} if is_relative(row) else set()
    decides = len(verdicts) > 1 and row.against not in BOUND_BY_TIMERS
    return by_cpu if decides else median(ratios), f"{said}, by CPU {by_cpu:.2f}"


def report(row, results, failures):
    """The cells of a row; the last says what became of its target."""
    title, figure, beside = WORKS[row.work]
    figure = row.figure or figure
    form = FIGURES[figure]
    target = target_of(row, form)
    this, peer = (row.work, row.name), (row.work, row.against)
    if this in failures:
        verdict = failures[this] if is_judged(row) else ""
        return [title, row.title, failures[this], "", "", target, verdict]
    values = {key: median(result[key] for result in results[this]) for key in results[this][0]}
    cells = [title, row.title, form.format(values[figure]), beside.format(**values)]
    ratio, versus = None, ""
    if row.against and peer in failures:
        versus = f"{TITLES[peer]} {failures[peer]}"
    elif row.against and peer in results:  # else only this row's own peers were asked for
        ratio, versus = compare(row, figure, results[this], results[peer])
    verdict = ""
    if is_relative(row) and ratio is None:
        verdict = failures.get(peer, "not measured")
    elif is_judged(row):
        verdict = "met" if meets(row, values[figure], ratio) else "missed"
    return [*cells, versus, target, verdict]


def show(table, markdown):
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    edge, between = ("| ", " | ") if markdown else ("", "  ")
    for cells in [table[0], ["-" * width for width in widths], *table[1:]]:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        print((edge + between.join(padded) + edge[::-1]).rstrip())


def main():
    names = list(dict.fromkeys(word for row in ROWS for word in sorted(words(row), key=len)))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "rows",
        nargs="*",
        metavar="ROW",
        help=", ".join(names) + " (default: all); servers: only these, in the works that are named",
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of a load (default: 2)")
    parser.add_argument("--mebibytes", type=int, default=1024, help="of a transfer (default: 1024)")
    parser.add_argument(
        "--open-seconds",
        type=float,
        default=60.0,
        help="of the transaction that keeps dead rows (default: 60)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument(
        "--quick", action="store_true", help="one short round of what matters most: a minute"
    )
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    options = parser.parse_args()
    if unknown := set(options.rows).difference(names):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if min(options.rounds, options.seconds, options.mebibytes, options.open_seconds) <= 0:
        parser.error("--rounds, --seconds, --mebibytes and --open-seconds must be above 0")
    wanted = select(options.rows)
    if not wanted:
        parser.error(f"no server of {', '.join(options.rows)} is in these works")
    if options.quick:
        wanted = [row for row in wanted if row.work in QUICK and is_judged(row)]
        options.rounds, options.seconds = 1, QUICK_SECONDS
    peers = {(row.work, row.against) for row in wanted}
    rows = [row for row in ROWS if row in wanted or (row.work, row.name) in peers]
    works = {row.work for row in rows}
    if any(work.startswith("dropin-close") for work in works) and not installed("wrk"):
        sys.exit("python -m benchmarks: the dropin-close rows take wrk, which is not installed")
    harness.allow_descriptors()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every finally
    with tempfile.TemporaryDirectory() as directory, row_loads.database(works) as url:
        pingpong = harness.build_pingpong(directory)
        echo = partial(harness.echo, pingpong)
        requests = partial(http_loads.requests, pingpong, options.seconds)
        measures = {
            "tcp": partial(echo, "tcp", options.seconds),
            "udp": partial(echo, "udp", options.seconds),
            "rpc-tcp": partial(echo, "tcp", options.seconds, exchange=harness.rpc_exchange("tcp")),
            "rpc-udp": partial(echo, "udp", options.seconds, exchange=harness.rpc_exchange("udp")),
            **{case: partial(requests, case=case) for case in http_loads.CASES},
            "http-growth": partial(http_loads.growth, pingpong, options.seconds),
            "dropin": requests,
            "dropin-1000": partial(requests, connections=1000),
            "dropin-close": partial(http_loads.closing, options.seconds),
            "dropin-close-1000": partial(http_loads.closing, options.seconds, connections=1000),
            "dropin-idle": partial(http_loads.mostly_idle, 1000),
            "memory": partial(harness.memory, harness.echo_line),
            "memory-http": partial(harness.memory, http_loads.get),
            "transfer-upload": partial(http_loads.transfer, http_loads.upload, options.mebibytes),
            "transfer-download": partial(
                http_loads.transfer, http_loads.download, options.mebibytes
            ),
            "rows": partial(row_loads.rows, url),
            "rows-sqlite": partial(row_loads.rows, url),
            "rows-latency": partial(row_loads.measures, url),
            "rows-dead": partial(row_loads.measures, url, seconds=options.open_seconds),
            "timers": partial(harness.microseconds, "timers"),
            **{
                work: partial(harness.microseconds, "xdr")
                for work in WORKS
                if work.startswith("xdr-")
            },
            "import": harness.import_milliseconds,
        }
        results, failures = measure(rows, options.rounds, measures)
    table = [report(row, results, failures) for row in rows]
    show([["work", "server", "median", "", "ratio", "target", ""], *table], options.markdown)
    versions = [f"{name} {version(name)}" for name in DISTRIBUTIONS if installed(name)]
    print(
        f"\n{harness.CONNECTIONS} connections, {harness.MESSAGE_BYTES} bytes (HTTP: "
        f"{len(GREETING)}); {harness.IDLE_CONNECTIONS:,} idle connections; bodies of "
        f"{options.mebibytes:,} MiB; 100,000 deadlines. Server on core {harness.SERVER_CORE}, "
        f"load on core {harness.LOAD_CORE}; {options.rounds} rounds of {options.seconds:g} s. "
        f"Python {platform.python_version()}, Twisted {', '.join([version('twisted'), *versions])}."
    )
    sys.exit(any(cells[-1] in ("missed", "failed") for cells in table))


if __name__ == "__main__":
    main()
