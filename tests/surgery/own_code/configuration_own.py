"""The configuration of a model whose code lies beside its weights."""

from transformers import PreTrainedConfig


class OwnConfig(PreTrainedConfig):
    model_type = "own"

    def __init__(self, vocab_size=491, hidden_size=32, num_hidden_layers=6, **given):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        super().__init__(**given)
