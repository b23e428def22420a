"""Speed beside a Postfix of our own, in the same run: ``python -m tests.bench``.

Needs root (Postfix's master does) and the load pair, smtp-source and smtp-sink. Both queues lie on the
same disk. Runs alternate; each is compared with the one after it, since a machine may change its speed within minutes,
and the median of these ratios counts. Trust the ratios, not the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import pstats
import statistics
import sys
import tempfile
from pathlib import Path

import twisted

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import backlog
import logins
import looks
import refusals
import watched
from contestants import Mtatwist, Peer
from measures import MEASURES, Measure
from rigs.loadpair import SmtpSink
from rigs.postfix import Postfix

NAMES = (*MEASURES, "backlog", "logins", "looks", "refusals", "watched")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"of {', '.join(NAMES)}; all")
    parser.add_argument("--runs", type=int, default=3, help="of each, alternating")
    parser.add_argument("--factor", type=float, default=1.0, help="times as many messages")
    parser.add_argument("--directory", type=Path, help="whose disk is used; must be open to all users")
    parser.add_argument("--alone", action="store_true", help="without Postfix, so without root")
    parser.add_argument("--profile", type=Path, help="write cProfile's statistics here (implies --alone)")
    chosen = parser.parse_args()
    chosen.measures = chosen.measures or NAMES
    unknown = set(chosen.measures) - set(NAMES)
    if unknown:
        parser.error(f"no such measure: {', '.join(sorted(unknown))}")
    return chosen


def speed(measure: Measure, rate: float) -> str:
    return f"{rate * measure.size / 1e6:.0f} MB/s" if measure.size >= 1_000_000 else f"{rate:.0f}/s"


def row(*cells: str) -> None:
    print(f"{cells[0]:34}", *(f"{cell:>12}" for cell in cells[1:]), flush=True)


def main() -> int:
    chosen = arguments()
    alone = chosen.alone or chosen.profile is not None
    missed = 0
    print(f"Python {platform.python_version()} ({sys.base_prefix}), Twisted {twisted.__version__}", flush=True)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=chosen.directory)))
        directory.chmod(0o755)
        if "refusals" in chosen.measures:
            rounds = max(10, int(refusals.ROUNDS * chosen.factor))
            missed += not refusals.report(refusals.measure(directory, rounds))
        if "logins" in chosen.measures:
            rate, loop = logins.compare(directory, runs=chosen.runs, factor=chosen.factor)
            verdict = "ok" if rate / loop >= logins.TARGET else "MISSED"
            missed += verdict == "MISSED"
            row("", "mtatwist", "ldap3 loop", "ratio", "target", "")
            cells = (f"{rate:.0f}/s", f"{loop:.0f}/s", f"{rate / loop:.2f}", str(logins.TARGET), verdict)
            row("50 parallel logins at slapd", *cells)
        if "looks" in chosen.measures:
            row("200,000 waiting", "mtactl", "the answer", "limit", "")
            for name, (whole, answer) in looks.measure(directory, runs=chosen.runs, factor=chosen.factor).items():
                late = name in looks.BOUNDED and whole > looks.LIMIT
                missed += late
                verdict = ("MISSED" if late else "ok") if name in looks.BOUNDED else ""
                row(name, f"{whole:.2f} s", f"{answer:.3f} s", f"{looks.LIMIT} s" if verdict else "", verdict)
        if not {*MEASURES, "backlog", "watched"} & {*chosen.measures}:
            return missed
        sink = stack.enter_context(SmtpSink(directory))
        profile = [f"--profile={chosen.profile}", "--profiler=cprofile", "--savestats"] if chosen.profile else []
        ours = Mtatwist(directory, sink.port, profile)
        stack.callback(ours.close)
        beside_peers = [name for name in chosen.measures if name in MEASURES]
        peers = [] if alone or not beside_peers else [Peer(stack.enter_context(Postfix(directory, sink.port)))]
        if beside_peers:
            row("", ours.name, *([] if alone else ["postfix", "ratio", "target", ""]))
        for name in beside_peers:
            measure = MEASURES[name].shortened(chosen.factor)
            rates: dict[str, list[float]] = {}
            for _ in range(1 if chosen.profile else chosen.runs):
                for contestant in (ours, *peers):
                    rates.setdefault(contestant.name, []).append(measure.run(contestant, sink, directory))
            medians = [statistics.median(values) for values in rates.values()]
            cells = [speed(measure, rate) for rate in medians]
            if not alone:
                ratio = statistics.median(mine / theirs for mine, theirs in zip(*rates.values(), strict=True))
                missed += ratio < measure.target
                verdict = "ok" if ratio >= measure.target else "MISSED"
                cells += [f"{ratio:.2f}", f"{measure.target:.1f}", verdict]
            row(measure.title, *cells)
        if "backlog" in chosen.measures and not chosen.profile:
            empty, full = backlog.compare(directory, sink, runs=chosen.runs, factor=chosen.factor)
            row("", "empty queue", "backlog", "ratio", "target", "")
            verdict = "ok" if full / empty >= backlog.TARGET else "MISSED"
            missed += verdict == "MISSED"
            row("accept 5 kB", f"{empty:.0f}/s", f"{full:.0f}/s", f"{full / empty:.2f}", str(backlog.TARGET), verdict)
        if "watched" in chosen.measures and not chosen.profile:
            unwatched, rates = watched.compare(directory, sink, runs=chosen.runs, factor=chosen.factor)
            row("", "not watched", "watched", "ratio", "target", "")
            for collector, rate in rates.items():
                verdict = "ok" if rate / unwatched >= watched.TARGET else "MISSED"
                missed += verdict == "MISSED"
                cells = (f"{unwatched:.0f}/s", f"{rate:.0f}/s", f"{rate / unwatched:.2f}", str(watched.TARGET), verdict)
                row(f"accept 5 kB, collector {collector}", *cells)
    if chosen.profile:
        pstats.Stats(str(chosen.profile)).sort_stats("tottime").print_stats(40)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
