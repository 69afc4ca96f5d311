"""Deleting layers is right for every family: the five properties, for every set of layers and attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import properties as holds
from families.inputs import prompts
from families.table import FAMILIES

from lmms_topoprune.errors import SurgeryError
from lmms_topoprune.surgery import decoder_layers, delete_layers, identity_layers, undeletable

pytestmark = pytest.mark.slow

CASES = [(name, attention) for name, f in FAMILIES.items() if f.sets for attention in f.attentions]


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_the_five_properties_hold_and_a_restore_is_bit_equal(
    name: str, attention: str, tmp_path: Path
) -> None:
    family = FAMILIES[name]
    model = holds.build(family, attention)
    singles, _ = prompts(model, family.inputs)
    dense = [holds.logits(model, inputs) for inputs in singles]
    holds.sees(model, singles[0], dense[0])
    for layers in family.sets:
        with identity_layers(model, layers):
            references = [holds.logits(model, inputs) for inputs in singles]
        holds.differs(references, dense)
        with delete_layers(model, layers) as deletion:
            assert len(decoder_layers(model)) == len(deletion.kept)
            holds.equals_identity(model, references, family.inputs)
            holds.cache_agrees(model, family.inputs)
            holds.batch_agrees(model, family.inputs)
            holds.reload_agrees(model, family.inputs, tmp_path / str(layers))
        for inputs, before in zip(singles, dense, strict=True):
            assert torch.equal(holds.logits(model, inputs), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_that_must_stay_are_named_with_the_reason_and_refused_untouched(name: str) -> None:
    family = FAMILIES[name]
    model = holds.build(family, "eager")
    config, layers = model.config.to_dict(), list(decoder_layers(model))
    reasons = undeletable(model)
    assert tuple(reasons) == family.stay
    for layer in family.stay:
        with pytest.raises(SurgeryError, match=f"^layer {layer} of {family.model} cannot be deleted: .+"):
            delete_layers(model, [layer])
    assert model.config.to_dict() == config
    assert list(decoder_layers(model)) == layers
