"""--trust-remote-code reaches everything that loads, and nothing is trusted without it."""

from __future__ import annotations

import pytest

CONFIG = """
from transformers import LlamaConfig

class MineConfig(LlamaConfig):
    model_type = "mine"
"""
MODEL = """
from transformers import LlamaForCausalLM
from .configuration_mine import MineConfig

class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig
"""


@pytest.fixture
def remote(tmp_path, embedded_processor):
    """A folder whose model class comes with it."""
    import json

    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path / "remote"
    size = len(embedded_processor.tokenizer)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=size, **shape)).save_pretrained(folder)
    embedded_processor.tokenizer.save_pretrained(folder)
    (folder / "configuration_mine.py").write_text(CONFIG)
    (folder / "modeling_mine.py").write_text(MODEL)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "architectures": ["MineForCausalLM"]}
    config["auto_map"] = {
        "AutoConfig": "configuration_mine.MineConfig",
        "AutoModelForCausalLM": "modeling_mine.MineForCausalLM",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_plan_for_a_model_with_its_own_code(topoprune, remote):
    wanted = ("plan", "--pretrained", remote, "--layers", "2", "--json")
    code, _, err = topoprune(*wanted)
    assert code == 2 and "pass --trust-remote-code to run it" in err and "Traceback" not in err
    code, out, err = topoprune(*wanted, "--trust-remote-code")
    assert code == 0 and '"dropped": [2]' in out, err
