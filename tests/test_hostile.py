"""Configs, recipes, run folders, weights files and data sets that mean harm: each gives one clear line, or works.

The strategies and what must hold are in tests/hostile.py; `python -m tests.fuzz` tries far more of it.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile import PROPERTIES


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", PROPERTIES)
@settings(suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_only_minidat_errors(name: str, data: st.DataObject) -> None:
    strategy, check = PROPERTIES[name]
    check(data.draw(strategy()))
