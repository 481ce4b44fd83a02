"""A bank is a value: appending to one never shows in another, whatever they share."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mil.aggregators import Bank
from edge_mil.aggregators.banked import bank as bank_module
from edge_mil.errors import StoreError
from edge_mil.types import Float32Array, InstanceOrder

WIDTHS = {"values": 3, "queries": 2}


def rows(first: int, count: int) -> tuple[dict[str, Float32Array], InstanceOrder]:
    numbers = np.arange(first, first + count, dtype=np.float32)
    arrays = {name: np.repeat(numbers[:, None], width, axis=1) for name, width in WIDTHS.items()}
    keys = tuple(struct.pack(">Q", 10_000 - first - i) for i in range(count))
    cells = np.stack([np.arange(first, first + count), np.zeros(count, np.int64)], axis=1)
    return arrays, InstanceOrder(keys, cells)


def numbers(bank: Bank) -> list[float]:
    assert np.array_equal(bank["queries"][:, 0], bank["values"][:, 0])
    assert np.array_equal(bank.cells[:, 0], bank["values"][:, 0])
    return [float(x) for x in bank["values"][:, 0]]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), max_size=12))
def test_every_bank_stays_what_it_was(steps: list[tuple[int, int]]) -> None:
    banks, wanted, used = [Bank(WIDTHS)], [[]], 0
    for chosen, count in steps:
        base = chosen % len(banks)
        banks.append(banks[base].append(*rows(used, count)))
        wanted.append(wanted[base] + [float(used + i) for i in range(count)])
        used += count
    assert [numbers(bank) for bank in banks] == wanted


@given(st.integers(0, 8), st.integers(0, 8))
def test_joining_holds_the_rows_of_both(left: int, right: int) -> None:
    one, other = Bank(WIDTHS).append(*rows(0, left)), Bank(WIDTHS).append(*rows(left, right))
    assert sorted(numbers(one.extend(other))) == [float(i) for i in range(left + right)]
    assert (len(one), len(other)) == (left, right)


def test_the_canonical_order_is_that_of_the_keys() -> None:
    bank = Bank(WIDTHS).append(*rows(0, 4)).append(*rows(4, 3))
    assert bank.order().tolist() == [6, 5, 4, 3, 2, 1, 0]


def test_bytes_give_the_bank_back_to_the_bit() -> None:
    arrays, instance_order = rows(0, 5)
    grouped = InstanceOrder(instance_order.keys, instance_order.cells, np.arange(5, dtype=np.int64))
    bank = Bank(WIDTHS).append(arrays, grouped)
    again = Bank.from_bytes(bank.to_bytes(), WIDTHS)
    assert numbers(again) == numbers(bank)
    assert again.keys == bank.keys
    assert again.groups.tolist() == [0, 1, 2, 3, 4]
    assert Bank.from_bytes(Bank(WIDTHS).to_bytes(), WIDTHS).count == 0
    for data in (b"", b"nonsense", bank.to_bytes()[:100]):
        with pytest.raises(StoreError, match="cannot be read"):
            Bank.from_bytes(data, WIDTHS)
    with pytest.raises(StoreError, match="does not fit"):
        Bank.from_bytes(bank.to_bytes(), {"values": 4, "queries": 2})


def test_an_array_with_a_rest_is_held_in_float64_and_stored_as_it_came() -> None:
    widths, rests = {"values": 3, "keys": 2, "left": 2}, {"keys": "left"}
    rng = np.random.default_rng(0)
    exact = rng.standard_normal((90, 2)) * 10.0 ** rng.integers(-20, 20, (90, 2))
    rounded = exact.astype(np.float32)
    arrays = {
        "values": rng.standard_normal((90, 3)).astype(np.float32),
        "keys": rounded,
        "left": (exact - rounded).astype(np.float32),
    }
    instance_order = InstanceOrder(
        tuple(struct.pack(">Q", i) for i in range(90)), np.zeros((90, 2), np.int64)
    )
    bank = Bank(widths, rests).append(arrays, instance_order)
    assert np.abs(bank.exact("keys") / exact - 1).max() < 1e-13
    with np.load(io.BytesIO(bank.to_bytes())) as stored:
        assert all(np.array_equal(stored[name], arrays[name]) for name in arrays)
    again = Bank.from_bytes(bank.to_bytes(), widths, rests)
    assert again.to_bytes() == bank.to_bytes()
    joined = Bank(widths, rests).extend(again).extend(Bank(widths, rests))
    assert np.array_equal(joined.exact("keys"), bank.exact("keys"))
    with pytest.raises(StoreError, match="does not fit"):
        Bank.from_bytes(bank.to_bytes(), widths | {"left": 3}, rests)


def test_what_is_found_of_a_full_block_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank_module, "BLOCK", 4)
    found: list[tuple[int, int]] = []

    def make(bank: Bank) -> list[float]:
        def total(rows: slice) -> float:
            found.append((rows.start, rows.stop))
            return float(bank["values"][rows, 0].sum())

        return bank.blocks(total, keep=True)

    six = Bank(WIDTHS).append(*rows(0, 6))
    nine = six.append(*rows(6, 3))
    assert make(six) == [6, 9]
    assert make(nine) == [6, 22, 8]
    assert make(nine) == [6, 22, 8]
    other = six.append(*rows(100, 2))
    assert make(other) == [6, 9 + 201]
    assert found == [(0, 4), (4, 6), (4, 8), (8, 9), (8, 9), (4, 8)]
    assert nine.blocks(lambda rows: rows.start, keep=False) == [0, 4, 8]
