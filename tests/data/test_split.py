"""Held-out samples: stratified, disjoint, and the same whatever else changes."""

import torch

from kd_lightning.data import DigitsDataModule
from kd_lightning.data.split import stratified, stratified_fraction


def test_stratified_is_exact_and_disjoint():
    labels = torch.arange(1000) % 10
    rest, taken = stratified(labels, 100, seed=0)
    assert torch.bincount(labels[taken]).tolist() == [10] * 10
    assert sorted(rest.tolist() + taken.tolist()) == list(range(1000))


def test_unequal_classes_keep_their_proportion():
    labels = torch.tensor([0] * 70 + [1] * 25 + [2] * 5)
    _, taken = stratified(labels, 17, seed=0)
    assert len(taken) == 17
    counts = torch.bincount(labels[taken], minlength=3)
    assert torch.all((counts - torch.tensor([0.70, 0.25, 0.05]) * 17).abs() < 1)
    _, taken = stratified_fraction(labels, 0.05, seed=0)
    assert torch.bincount(labels[taken]).tolist() == [4, 1, 1]  # none is forgotten


def test_seed_chooses_and_more_include_fewer():
    labels = torch.arange(200) % 4
    few, other, many = (set(stratified(labels, n, s)[1].tolist()) for n, s in ((20, 0), (20, 1), (60, 0)))
    assert few < many
    assert few != other


def test_split_does_not_depend_on_the_run():
    one, two = DigitsDataModule(seed=0), DigitsDataModule(seed=1, batch_size=7)
    three = DigitsDataModule(split_seed=5)
    for data in (one, two, three):
        data.setup()
        data.setup("test")
        assert data.sizes == {"train": 1293, "val": 144, "test": 360}
    for split in ("train", "val", "test"):
        assert torch.equal(one.splits[split].padded, two.splits[split].padded)
        assert not torch.equal(one.splits[split].padded, three.splits[split].padded)
    assert one.fingerprint() == two.fingerprint() != three.fingerprint()
