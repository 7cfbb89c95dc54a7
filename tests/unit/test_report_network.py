"""What is known of timm's ResNets without torch is what counting them with it gives."""

import json

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.report.network import TIMM_RESNETS


@pytest.mark.parametrize("name", TIMM_RESNETS)
def test_timms_resnets_are_as_they_are_counted(name: str):
    result = CliRunner().invoke(app, ["model", "show", name, "--json"], catch_exceptions=False)
    counted, known = json.loads(result.stdout), TIMM_RESNETS[name]
    assert counted["num_parameters"] == known.num_parameters
    assert counted["num_multiply_adds"] == known.num_multiply_adds
