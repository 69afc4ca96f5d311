"""What a method of repair works with: the dense model, its cuts, and sums over the calibration set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from lmms_topoprune.calibration.decoder import Decoder
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.errors import SurgeryError
from lmms_topoprune.plan import runs
from lmms_topoprune.repair.cut_sums import CutRecorder, CutSums, Kind, KnownSums
from lmms_topoprune.repair.probes import Passes, Probe
from lmms_topoprune.repair.weights import Projection, last_projection
from lmms_topoprune.surgery import decoder_layers


@dataclass
class Job:
    """One deletion that is to be repaired.

    Attributes:
        model: the dense model.
        decoder: its decoder.
        passes: its calibration set.
        dropped: the layers that go.
        cuts: runs of these, ascending.
        facts: "ridge", and the "fingerprint" of the calibration set if it has one.
        ranks: processes that share a pass.
        known: sums that are there already.
    """

    model: Any
    decoder: Decoder
    passes: Passes
    dropped: frozenset[int]
    cuts: list[range]
    facts: Mapping[str, Any]
    ranks: Ranks
    known: KnownSums

    @classmethod
    def of(
        cls,
        model: Any,
        passes: Passes,
        dropped: frozenset[int],
        facts: Mapping[str, Any],
        ranks: Ranks,
        known: KnownSums,
    ) -> Job:
        decoder = Decoder.of(model, decoder_layers(model))
        return cls(model, decoder, passes, dropped, runs(dropped), facts, ranks, known)

    def projections_before(self, cuts: Iterable[range]) -> dict[range, Projection]:
        """The last linear map of the layer before each cut."""
        cuts = list(cuts)
        missing = {cut.start - 1 for cut in cuts} - self.known.projections.keys()
        if missing:
            probe = Probe(self.decoder, frozenset(missing), last_projection)
            self.passes.run(probe, peek=True)
            self.known.projections |= probe.found
        return {cut: self.known.projections[cut.start - 1] for cut in cuts}

    def sums(self, *, projected: bool = False) -> dict[range, CutSums]:
        """The sums of each cut over all samples of all processes, on the CPU; collected where unknown.

        Args:
            projected: also those with the projection before each cut.
        """
        kind = (self.facts.get("fingerprint"), projected)
        if missing := self.known.missing(kind, self.cuts):
            self._collect(kind, missing)
        return {cut: self.known.sums[(*kind, cut)] for cut in self.cuts}

    def _collect(self, kind: Kind, missing: list[range]) -> None:
        """One pass for these cuts, and for as many of those that will be asked for as memory allows."""
        projected = kind[1]
        size = CutSums.size_of(self._width(projected), projected=projected)
        cuts = [*missing, *self.known.others(kind, self.cuts, size)]
        try:
            near = self.projections_before(cuts) if projected else {}
        except SurgeryError:  # whoever is concerned says so when it is their turn
            cuts = missing
            near = self.projections_before(cuts)
        recorder = CutRecorder(self.decoder, cuts, near)

        def work() -> list[CutSums]:
            self.passes.run(recorder)
            return [recorder.totals[cut].on_cpu() for cut in cuts if cut in recorder.totals]

        shares = [share for share in self.ranks.together(work) if share]  # none: fewer samples than processes
        found = {cut: reduce(add, (share[i] for share in shares)) for i, cut in enumerate(cuts)}
        self.known.put(kind, found, self.cuts)

    def _width(self, projected: bool) -> int:
        """Of the hidden states; 0 where nothing tells."""
        if projected:
            near = self.projections_before(self.cuts).values()
            return max(projection.module.out_features for projection in near)
        return int(getattr(getattr(self.decoder.parent, "config", None), "hidden_size", 0))
