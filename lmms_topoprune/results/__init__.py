"""What lmms-eval leaves behind, read and checked: scores a unit, settings, costs, the plan beside it."""
