"""Are the labels before worth reading?

Labels that have arrived are inputs like features, and where they tell nothing they are noise that
every member has to learn to ignore, most of all from few rows. So two networks that differ in
nothing else are compared, label by label: one always reads them, one never does. All who learn read
them while the first is ahead; what never changes again, a network of the archive or a reference,
reads as it did when it was made, and trees keep the cuts that they have until these fold up.

The comparison is prequential (Dawid 1984, Statistical theory: the prequential approach, JRSS A): by
what both said when they were asked, so labels that come late are worth what they are worth late.
It fades, so what labels tell may change; between two bounds nothing does (hysteresis). All keys of
a stream decide together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drift.compiled import kernel
from streammeta.experts.kernels import REGRESSION
from streammeta.mixture import class_score, value_score

Floats = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Rows of ``worth (2,)``: by how many nats reading labels is ahead; whether they are read, 1 or 0.
#: Where they always are, infinitely many: then nothing is compared.
AHEAD, READ = 0, 1
#: What is left of that with every label, the most nats that one of them counts for, and the most
#: that anybody is ahead: how useful labels were once says nothing of whether they still are.
FADES, MOST, FARTHEST = 0.999, 2.0, 15.0
#: Labels are read from so many nats on, and are not from so many down.
OPENS, CLOSES = 3.0, -1.0
#: Before any label they are.
AT_BIRTH = (0.0, 1.0)


@kernel()
def weigh(
    worth: Floats, reader: Floats, other: Floats, variances: Floats, ages: I64, truth: float,
    n_classes: int, task: int,
) -> bool:  # fmt: skip
    """Move ``worth (2,)`` by a label to what the network that reads labels said, ``reader (O,)``,
    and the ``other``; ``variances`` and ``ages (2,)`` of both are for their scores. Whether it has
    been turned over that labels are read."""
    if task == REGRESSION:
        one, _ = value_score(truth - reader[0], variances[0], ages[0])
        two, _ = value_score(truth - other[0], variances[1], ages[1])
    else:
        _, one = class_score(reader, int(truth), n_classes)
        _, two = class_score(other, int(truth), n_classes)
    ahead = FADES * worth[AHEAD] + min(max(one - two, -MOST), MOST)
    worth[AHEAD] = min(max(ahead, -FARTHEST), FARTHEST)
    read = worth[AHEAD] > (CLOSES if worth[READ] != 0.0 else OPENS)
    turned = read != (worth[READ] != 0.0)
    worth[READ] = 1.0 if read else 0.0
    return bool(turned)
