"""Numbers by counter."""

import numpy as np
import torch
from torch.func import vmap

from pipelines import counter_rng


def splitmix(x: int) -> int:
    """One round of the hash in Python's whole numbers, the shifts carrying the sign."""

    def signed(v: int) -> int:
        return (v + (1 << 63)) % (1 << 64) - (1 << 63)

    x = signed((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9)
    x = signed((x ^ (x >> 27)) * 0x94D049BB133111EB)
    return x ^ (x >> 31)


def test_the_hash_is_whole_number_arithmetic() -> None:
    """Tensors give what Python's own whole numbers give, so every device gives it."""
    values = [0, 1, -1, 2**62, -(2**63), 123456789]
    found = counter_rng._mix(torch.tensor(values))
    assert found.tolist() == [splitmix(v) for v in values]


def test_one_replica_draws_what_it_draws_among_five() -> None:
    """Under vmap a replica's numbers are bit-identical to those it draws alone."""
    keys = counter_rng.key(torch.arange(5), 3, 8)
    together = vmap(lambda k: counter_rng.uniform(k, "here", (4, 7)))(keys)
    for r in range(5):
        assert torch.equal(together[r], counter_rng.uniform(keys[r], "here", (4, 7)))


def test_numbers_are_uniform_and_unrelated() -> None:
    """100,000 numbers are uniform; neighbours, keys and places are uncorrelated."""
    keys = counter_rng.key(torch.arange(4), 0)
    u = torch.stack([counter_rng.uniform(k, "a", (100_000,)) for k in keys]).double().numpy()
    assert u.min() >= 0
    assert u.max() < 1
    assert np.abs(u.mean(1) - 0.5).max() < 0.005
    assert np.abs(u.var(1) - 1 / 12).max() < 0.002
    assert np.abs(np.corrcoef(u) - np.eye(4)).max() < 0.015
    assert abs(np.corrcoef(u[0, 1:], u[0, :-1])[0, 1]) < 0.015
    other = counter_rng.uniform(keys[0], "b", (100_000,)).double().numpy()
    assert abs(np.corrcoef(u[0], other)[0, 1]) < 0.015
    counts = np.bincount((u[0] * 64).astype(int), minlength=64)
    assert ((counts - 100_000 / 64) ** 2 / (100_000 / 64)).sum() < 110  # chi², 63 degrees


def test_a_key_depends_on_every_counter_and_their_order() -> None:
    """Keys of different seeds, epochs and batches all differ."""
    keys = {
        int(counter_rng.key(seed, epoch, batch))
        for seed in range(8)
        for epoch in range(8)
        for batch in range(8)
    }
    assert len(keys) == 512
    many = counter_rng.key(torch.arange(8), 3, torch.arange(8)[:, None])
    assert all(int(many[b, r]) == int(counter_rng.key(r, 3, b)) for b in range(8) for r in range(8))


def test_a_permutation_holds_each_number_once_and_each_order_equally_often() -> None:
    """Every one of the six orders of three things appears about as often."""
    keys = counter_rng.key(torch.arange(6000), 1)
    orders = vmap(lambda k: counter_rng.permutation(k, "order", 3))(keys)
    assert (orders.sort(1).values == torch.arange(3)).all()
    codes = orders[:, 0] * 9 + orders[:, 1] * 3 + orders[:, 2]
    counts = torch.unique(codes, return_counts=True)[1]
    assert len(counts) == 6
    assert counts.min() > 850


def test_dropout_keeps_the_mean_and_drops_the_share() -> None:
    """A share p becomes zero and the rest is divided by 1 - p; in eval mode nothing happens."""
    x, key = torch.ones(100_000), counter_rng.key(5)
    y = counter_rng.dropout(x, 0.3, key, "place", training=True)
    assert abs(float((y == 0).float().mean()) - 0.3) < 0.01
    assert torch.equal(y[y > 0], torch.full_like(y[y > 0], 1 / 0.7))
    assert counter_rng.dropout(x, 0.3, key, "place", training=False) is x


def test_single_and_double_precision_drop_the_same_elements() -> None:
    """The numbers do not depend on the dtype of what is dropped."""
    key, x = counter_rng.key(1), torch.ones(1000)
    single = counter_rng.dropout(x, 0.5, key, "p", training=True)
    double = counter_rng.dropout(x.double(), 0.5, key, "p", training=True)
    assert torch.equal(single.double(), double)


def test_normal_numbers_are_normal() -> None:
    """100,000 of them are normal to within sampling error, and finite at u = 0."""
    x = counter_rng.normal(counter_rng.key(7, 1), "noise", (100_000,)).double().numpy()
    assert np.isfinite(x).all()
    grid = np.linspace(-3, 3, 25)
    share = (x[:, None] <= grid).mean(0)
    normal = torch.special.ndtr(torch.from_numpy(grid)).numpy()
    assert np.abs(share - normal).max() < 0.006
