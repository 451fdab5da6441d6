"""What is written about the kernels holds."""

import re
from pathlib import Path

import pytest

from sparkle_worker.kernels.registry import KERNELS

README = (Path(__file__).parents[3] / "worker" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_the_readme_specifies_each_kernel_in_its_version(kernel):
    section = re.search(rf"### {kernel.name} {kernel.version}\n(.*?)(?=\n##)", README, re.DOTALL)
    assert section
    for name in kernel.parameters:
        assert f"`{name}`" in section[1]
    unit = kernel.unit(kernel.validate({}), kernel.default_units(kernel.validate({})), 0)
    assert "{" + ", ".join(unit) + "}" in section[1]


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_the_example_of_a_kernel_can_be_typed(kernel):
    command, name, *options = kernel.example.removeprefix("sparkle ").split()
    assert (command, name) == ("submit", kernel.name)
    params = dict(option.split("=") for option in options if "=" in option)
    assert kernel.validate(params)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_texts_fit_a_terminal_line(kernel):
    for text in (kernel.summary, kernel.cost_law, kernel.example, *kernel.parameters.values()):
        assert 0 < len(text) <= 110
        assert text.isprintable()
