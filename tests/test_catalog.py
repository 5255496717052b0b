"""The one table of families: names, networks, and configs as JSON keeps them."""

import json

import numpy as np
import pytest

import minidat
from minidat import models
from minidat.catalog import FAMILIES, config_from_dict, config_to_dict, create_model, get_config, list_models
from minidat.errors import ConfigError


def test_names_are_unique_and_are_those_of_their_configs() -> None:
    names = list_models()
    assert len(names) == len(set(names)) == sum(len(family.published) for family in FAMILIES.values())
    assert set(models.list_models()) <= set(names)
    for name in names:
        assert get_config(name).name == name


@pytest.mark.parametrize("name", list_models())
def test_a_config_survives_json(name: str) -> None:
    config = get_config(name)
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_a_classifier_is_the_one_of_the_models() -> None:
    ours = create_model("datpp_tiny", image_size=64, num_classes=7, dtype=np.float64, seed=3)
    theirs = models.create_model("datpp_tiny", image_size=64, num_classes=7, dtype=np.float64, seed=3)
    assert type(ours) is minidat.DAT
    assert ours.config == theirs.config
    for name, value in theirs.state_dict().items():
        assert np.array_equal(ours.state_dict()[name], value)


@pytest.mark.parametrize("wrong", [None, 3, {"name": "dat_tiny"}])
def test_what_is_no_config_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"model: found .*, expected a name or a config"):
        create_model(wrong)


def test_unknown_names_and_families_are_refused() -> None:
    with pytest.raises(ConfigError, match="model name: found 'dat_huge', expected one of dat_tiny, "):
        create_model("dat_huge")
    with pytest.raises(ConfigError, match="family: found 'swin', expected one of classifier"):
        config_from_dict({"family": "swin"})
    with pytest.raises(ConfigError, match="family: found \\[\\], expected one of classifier"):
        config_from_dict({"family": []})
    with pytest.raises(ConfigError, match="model config: found list, expected a dict"):
        config_from_dict([])
