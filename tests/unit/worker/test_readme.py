"""What is written about the kernels holds."""

import re
from pathlib import Path

import pytest

from sparkle_worker.kernels.arrays import ArrayType
from sparkle_worker.kernels.registry import ARRAY_KERNELS, KERNELS

README = (Path(__file__).parents[3] / "worker" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_the_readme_specifies_each_kernel_in_its_version(kernel):
    section = re.search(rf"### {kernel.name} {kernel.version}\n(.*?)(?=\n##)", README, re.DOTALL)
    assert section
    for name in kernel.parameters:
        assert f"`{name}`" in section[1]
    unit = kernel.unit(kernel.validate({}), kernel.default_units(kernel.validate({})), 0)
    assert "{" + ", ".join(unit) + "}" in section[1]


SQUARE = ArrayType("float32", (9, 9))
EVERY = {**KERNELS, **ARRAY_KERNELS}


@pytest.mark.parametrize("kernel", ARRAY_KERNELS.values(), ids=ARRAY_KERNELS)
def test_the_readme_specifies_each_kernel_of_arrays_in_its_version(kernel):
    section = re.search(rf"### {kernel.name} {kernel.version}\n(.*?)(?=\n##)", README, re.DOTALL)
    assert section
    for name in kernel.parameters:
        assert f"`{name}`" in section[1]
    given = {name: SQUARE for name in kernel.inputs if name not in kernel.optional_inputs}
    job = kernel.with_arrays({}, given)
    assert "{" + ", ".join(job) + "}" in section[1]
    assert "{" + ", ".join(kernel.unit(job, 1, 0)) + "}" in section[1]
    assert re.search(rf"^\| `{kernel.name}` \| {kernel.verification} \|", README, re.MULTILINE)


@pytest.mark.parametrize("kernel", ARRAY_KERNELS.values(), ids=ARRAY_KERNELS)
def test_the_example_of_a_kernel_of_arrays_can_be_typed(kernel):
    words = iter(kernel.example.split())
    assert [next(words) for _ in range(3)] == ["sparkle", "submit", kernel.name]
    params, inputs = {}, set()
    for word in words:
        if word == "-p":
            params.update([next(words).split("=")])
        if word == "--input":
            inputs.add(next(words).partition("=")[0])
    assert inputs == set(kernel.inputs) - kernel.optional_inputs
    kernel.with_arrays(params, dict.fromkeys(inputs, SQUARE))


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_the_example_of_a_kernel_can_be_typed(kernel):
    command, name, *options = kernel.example.removeprefix("sparkle ").split()
    assert (command, name) == ("submit", kernel.name)
    params = dict(option.split("=") for option in options if "=" in option)
    assert kernel.validate(params)


@pytest.mark.parametrize("kernel", EVERY.values(), ids=EVERY)
def test_texts_fit_a_terminal_line(kernel):
    of_arrays = (kernel.error_law, *kernel.inputs.values()) if kernel.name in ARRAY_KERNELS else ()
    for text in (kernel.summary, kernel.cost_law, kernel.example, *kernel.parameters.values(), *of_arrays):
        assert 0 < len(text) <= 110
        assert text.isprintable()
