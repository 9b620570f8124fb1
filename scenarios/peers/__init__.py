"""Learners that live in an environment of their own, judged by the scores of this one.

CapyMOA (Gomes et al. 2025, arXiv:2502.07432) runs MOA's Java learners; its requirements conflict
with ours, so ``make peers`` installs it into ``.venv-peers``. ``run`` writes a stream to a folder,
lets ``capymoa_loop`` answer and learn it row by row over there, and scores the answers here.

A peer is told beforehand what a MOA header must declare: the columns, the categories of nominal
columns and the classes, each in order of first appearance in the stream. Nothing else.
"""

from scenarios.peers.bridge import NAMES, PREFIX, missing, python, require, run

__all__ = ["NAMES", "PREFIX", "missing", "python", "require", "run"]
