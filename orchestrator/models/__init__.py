"""Networks: plain arguments in, `nn.Module`s out; nothing here knows of recipes, runs or ranks."""

from orchestrator.models.dropout import SampleDropout, clear_sample_keys, set_sample_keys
from orchestrator.models.registry import create_model

__all__ = ["SampleDropout", "clear_sample_keys", "create_model", "set_sample_keys"]
