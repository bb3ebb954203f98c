"""Products of rounded inputs: as near as bfloat16 allows, float32 all around, and the process's setting put back."""

import pytest
import torch

from thex.precision import mixed, products_in


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_products_are_near_and_the_setting_comes_back(precision: str) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(64, 64, generator=generator) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    with products_in(precision):  # type: ignore[arg-type]
        inside, found = torch.get_float32_matmul_precision(), left @ right
    assert inside == {"float32": before, "bfloat16": "medium"}[precision]
    assert found.dtype == torch.float32
    # bfloat16 keeps 8 bits of each factor; a processor without such products keeps all.
    bits = {"float32": 2.0**-20, "bfloat16": 2.0**-7}[precision]
    assert ((found - left @ right).abs() <= bits * (left.abs() @ right.abs())).all()

    def stopped() -> None:
        with products_in(precision):  # type: ignore[arg-type]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(
    ("offered", "dtype"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_a_processor_that_would_emulate_bfloat16_multiplies_float32(
    monkeypatch: pytest.MonkeyPatch, offered: dict[str, bool], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: offered)
    layer, inputs = torch.nn.Linear(8, 4), torch.randn(3, 8)
    with mixed(torch.device("cpu")):
        assert layer(inputs).dtype == dtype
    with mixed(torch.device("cpu"), enabled=False):
        assert layer(inputs).dtype == torch.float32
