"""From options to a plan, and from a plan to a pruned model."""

from lmms_topoprune.pipeline.apply import apply_plan
from lmms_topoprune.pipeline.planner import Planner, make_plan

__all__ = ["Planner", "apply_plan", "make_plan"]
