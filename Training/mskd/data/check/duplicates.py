"""The same image or label map under two ids: it is learnt twice, or learnt and then tested on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from mskd.data.check.finding import Finding, listed
from mskd.data.check.measure import Measured

# Between strangers 0.9 at most on a set of head CTs; above 0.998 after noise of a tenth of the image's deviation.
ALIKE = 0.97
BLOCK = 1024


def duplicate_findings(cases: Sequence[Measured]) -> list[Finding]:
    """Exact copies, near copies, and label maps that were given to two images."""
    exact = _groups(_exact_pairs(cases), len(cases))
    taken = {pair for group in exact for pair in ((a, b) for a in group for b in group)}
    near = _groups((pair for pair in _near_pairs(cases) if pair not in taken), len(cases))
    found = [_exact([cases[index] for index in group]) for group in exact]
    found += [_near([cases[index] for index in group]) for group in near]
    return [*found, *_same_labels(cases, [*exact, *near])]


def _exact_pairs(cases: Sequence[Measured]) -> Iterable[tuple[int, int]]:
    """Cases that share a channel, whatever its numeric type; a constant one means nothing."""
    owners: dict[str, list[int]] = defaultdict(list)
    for index, case in enumerate(cases):
        for digest in {channel.digest for channel in case.channels if channel.minimum < channel.maximum}:
            owners[digest].append(index)
    for group in owners.values():
        yield from ((group[0], other) for other in group[1:])


def _near_pairs(cases: Sequence[Measured]) -> Iterable[tuple[int, int]]:
    rows = [index for index, case in enumerate(cases) if case.signature is not None]
    if not rows:
        return
    signatures = np.stack([cases[index].signature for index in rows])  # type: ignore[misc]
    for start in range(0, len(rows), BLOCK):
        alike = signatures[start : start + BLOCK] @ signatures.T > ALIKE
        for first, second in np.argwhere(alike):
            if second > first + start:
                yield rows[first + start], rows[second]


def _groups(pairs: Iterable[tuple[int, int]], count: int) -> list[list[int]]:
    """Indices that are linked by pairs, directly or through others."""
    home = list(range(count))

    def root(index: int) -> int:
        while home[index] != index:
            index = home[index]
        return index

    for first, second in pairs:
        home[root(second)] = root(first)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(count):
        groups[root(index)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _exact(group: Sequence[Measured]) -> Finding:
    ids = tuple(case.id for case in group)
    consequences = _consequences(group)
    text = f"{listed(ids)} are the same image, voxel for voxel{consequences}; keep one of them."
    return Finding("duplicate", "error" if consequences else "warning", ids, text)


def _near(group: Sequence[Measured]) -> Finding:
    ids = tuple(case.id for case in group)
    signatures = np.stack([case.signature for case in group])  # type: ignore[misc]
    closest = float(np.sort((signatures @ signatures.T)[np.triu_indices(len(group), 1)])[-1])
    text = (
        f"{listed(ids)} are almost the same image (their small copies correlate by {closest:.4f}, strangers' by less "
        f"than {ALIKE:g}){_consequences(group)}; keep one, or give them the same patient if they are one person's."
    )
    return Finding("near-duplicate", "warning", ids, text, round(closest, 4))


def _consequences(group: Sequence[Measured]) -> str:
    labels = {case.labels_digest for case in group if case.labels_digest}
    found = []
    if len(labels) > 1:
        found.append("with different labels")
    if len({case.patient for case in group}) > 1:
        found.append("under different patients, so that one may be trained and the other tested on")
    return "".join(f", {words}" for words in found)


def _same_labels(cases: Sequence[Measured], known: Sequence[Sequence[int]]) -> list[Finding]:
    """One label map on images that are not the same: it can be true of one of them at most."""
    same = {(a, b) for group in known for a in group for b in group}
    owners: dict[str, list[int]] = defaultdict(list)
    for index, case in enumerate(cases):
        if case.labels_digest and case.classes:
            owners[case.labels_digest].append(index)
    found = []
    for group in owners.values():
        if any((group[0], other) not in same for other in group[1:]):
            ids = tuple(cases[index].id for index in group)
            text = (
                f"{listed(ids)} have the very same label map on different images; restore the one that was overwritten."
            )
            found.append(Finding("same-labels", "warning", ids, text))
    return found
