"""``python -m scenarios.choosing --out FILE``: a policy for ``model.chooser``, trained on every
generator of ``bench choosing``."""

from __future__ import annotations

import argparse
import sys
from time import perf_counter

from scenarios.choosing.trial import ROWS, all_courses, train


def main() -> None:
    """Run the default model over all streams, train on all of them, write the policy."""
    parser = argparse.ArgumentParser(prog="python -m scenarios.choosing", description=__doc__)
    parser.add_argument("--out", required=True, help="the file to write (safetensors)")
    parser.add_argument("--seed", type=int, default=0, help="of streams and training; default 0")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"of each stream; default {ROWS}")
    asked = parser.parse_args()
    begun = perf_counter()
    courses = all_courses(asked.rows, asked.seed)
    train(courses, asked.seed).write(asked.out)
    decisions = sum(len(course.at) for course in courses)
    told = f"{len(courses)} streams, {decisions:,} decisions, {perf_counter() - begun:.0f} s"
    use = f"use it: --set model.chooser={asked.out}"
    sys.stderr.write(f"{asked.out}: {told}; {use}\n")


if __name__ == "__main__":
    main()
