"""`configs/inference.json`, opened by Python."""

import importlib

import pytest
from monai.bundle.config_item import ComponentLocator

from scripts.inference.axial import AxialInferer
from scripts.inference.pipeline import opened


@pytest.mark.parametrize("package", ["scripts", "ravnet_bundle.scripts"])
def test_a_config_and_what_overrides_it_name_the_package_that_opens_it(package):
    """A class that was imported under the other name too would be another class."""
    pipeline = importlib.import_module(f"{package}.inference.pipeline")
    parser = pipeline.opened(inferer={"_target_": "scripts.inference.axial.AxialInferer"})
    for key in ("network_def", "inferer"):
        assert type(parser.get_parsed_content(key)).__module__.startswith(f"{package}.")


def test_it_is_opened_while_another_thread_imports(monkeypatch):
    """A CT is read meanwhile, by whatever its format needs: MONAI, which looks through all modules, must look again."""
    look, grown = ComponentLocator._find_module_names, iter([True, True])

    def looked(self):
        if next(grown, False):
            raise RuntimeError("dictionary changed size during iteration")
        return look(self)

    monkeypatch.setattr(ComponentLocator, "_find_module_names", looked)
    assert isinstance(opened().get_parsed_content("inferer"), AxialInferer)
