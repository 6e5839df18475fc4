"""Measures the product and its peers on the same work, and writes docs/benchmarks.md where all works are measured."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine, report
from benchmarks.peers import programs
from benchmarks.place import Place, Work, measure
from benchmarks.report import Report, Section
from benchmarks.sampling import Row, WrongAnswer, figures_of
from benchmarks.works.all import WORKS

ROOT = Path(__file__).resolve().parent.parent
PAGE, RESULTS = ROOT / "docs" / "benchmarks.md", ROOT / "benchmarks" / "results.json"
ROUNDS_MIN = 2


def main() -> None:
    """Measure, print, and write where everything was measured."""
    options = _options(sys.argv[1:])
    works = [WORKS[name] for name in options.works] or list(WORKS.values())
    is_written = not options.works and not options.no_write
    if is_written and not options.busy and (busy := machine.busy_share()) > machine.BUSY_MAX:
        sys.exit(
            f"error: {busy:.0%} of this machine is in use by others, so another run would not repeat the figures. "
            "Stop them, or give --busy to write all the same, or --no-write to only print."
        )
    absent = programs.absent()
    for name, how in absent.items():
        print(f"not installed: {name}; {how}")
    began = time.monotonic()
    measured = Report(
        f"{datetime.now(UTC):%Y-%m-%d}", options.rounds, options.seconds, _sections(works, options), absent
    )
    print(f"measured in {time.monotonic() - began:.0f} s")
    if len(measured.sections) < len(works):
        sys.exit("error: a work failed, so nothing is written")
    if is_written:
        PAGE.write_text(report.page(measured))
        RESULTS.write_text(json.dumps(report.document(measured), indent=1) + "\n")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    listed = "\n".join(f"  {work.name:20} {work.title}" for work in WORKS.values())
    parser = argparse.ArgumentParser(
        prog="script/bench",
        description=__doc__,
        epilog=f"works:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("works", nargs="*", metavar="NAME", help="the works to run; without any, all of them")
    parser.add_argument("--seconds", type=float, default=2, help="length of one run (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds in turn; medians are reported (default 3)")
    parser.add_argument("--no-write", action="store_true", help="only print")
    parser.add_argument("--busy", action="store_true", help="write also where others use the machine")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.works if name not in WORKS]:
        parser.error(f"no such work: {', '.join(unknown)}; script/bench --help lists them")
    if options.rounds < ROUNDS_MIN and not options.works:
        parser.error(f"the page needs at least {ROUNDS_MIN} rounds, so that it can say how they differ")
    return options


def _sections(works: Sequence[Work], options: argparse.Namespace) -> list[Section]:
    """Measure the works; those that fail are printed and left out."""
    sections = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        place = Place(Path(name), stack)
        for work in works:
            try:
                samples = measure(work.entrants(place), options.rounds, options.seconds, is_fixed=work.is_fixed)
            except WrongAnswer as wrong:
                print(f"error: {work.name}: {wrong}", file=sys.stderr)
                continue
            rows = [Row(work.name, who, figures_of(runs)) for who, runs in samples.items()]
            sections.append(Section(work.name, work.title, work.how, rows))
            print("\n".join(report.lines(sections[-1])), flush=True)
    return sections


if __name__ == "__main__":
    main()
