"""A criterion turned round: the control that drops first what the criterion would keep longest."""

from __future__ import annotations

from dataclasses import replace

from lmms_topoprune.criteria.topology import pairwise

topology_reversed = replace(
    pairwise,
    name="reverse",
    summary="topology turned round, as reverse:topology",
    reversed=True,
)
