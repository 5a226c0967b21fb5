import pytest
import torch

from hoserkd.engine.search import products
from hoserkd.engine.search.products import ROW_MULTIPLE, Product, is_steady, one_thread


@pytest.mark.parametrize(("width", "height"), [(1024, 256), (256, 1024), (256, 768), (64, 48)])
def test_product_of_a_row_is_to_the_bit_the_same_in_any_batch(width, height):
    torch.manual_seed(0)
    weight, bias, x = torch.randn(height, width), torch.randn(height), torch.randn(512, width)
    product = Product(weight, bias)
    with one_thread():
        whole = product(x)
        for rows in (16, 48, 112, 240, 400):
            assert torch.equal(product(x[:rows]), whole[:rows])
    torch.testing.assert_close(whole, x @ weight.T + bias, rtol=1e-4, atol=1e-4)


def test_product_that_no_layout_keeps_steady_is_made_a_few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(products, "is_steady", lambda weight: False)
    torch.manual_seed(0)
    weight, x = torch.randn(24, 32), torch.randn(5 * ROW_MULTIPLE, 32)
    torch.testing.assert_close(Product(weight, None)(x), x @ weight.T, rtol=1e-5, atol=1e-5)


def test_weight_whose_products_depend_on_the_rows_is_not_steady(monkeypatch):
    plain = torch.addmm

    def cut_by_rows(bias, x, weight):
        cut = 100 if len(x) < 200 else 300
        return plain(plain(bias, x[:, :cut], weight[:cut]), x[:, cut:], weight[cut:])

    weight = torch.randn(512, 64, generator=torch.Generator().manual_seed(1))
    assert is_steady(weight.t().contiguous().t())
    monkeypatch.setattr(torch, "addmm", cut_by_rows)
    assert not is_steady(weight)
