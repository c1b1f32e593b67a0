"""Counter-based random numbers: fixed for ever, independent of order and company, well spread."""

import torch

from ssl_tasks.randomness import bits, mix, normal, row_keys, uniform


def test_splitmix64_reference_values() -> None:
    """First outputs of SplitMix64 seeded with 1234567, as published with the algorithm's C code."""
    state = 1234567
    golden = 0x9E3779B97F4A7C15
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for number, value in enumerate(expected, start=1):
        word = (state + number * golden) % 2**64
        signed = word - 2**64 if word >= 2**63 else word
        assert int(mix(torch.tensor(signed))) % 2**64 == value


def test_a_row_does_not_depend_on_its_company() -> None:
    positions = torch.tensor([3, 99, 12345])
    together = uniform(row_keys(7, 5, positions), "crop", 4)
    alone = torch.cat([uniform(row_keys(7, 5, positions[i : i + 1]), "crop", 4) for i in (2, 0, 1)])
    assert torch.equal(together[[2, 0, 1]], alone)


def test_seed_step_sample_and_stream_all_matter() -> None:
    here = torch.tensor([5])
    keys = [row_keys(0, 0, here), row_keys(1, 0, here), row_keys(0, 1, here), row_keys(0, 0, here + 1)]
    drawn = [int(bits(key, "a", 1)) for key in keys] + [int(bits(keys[0], "b", 1))]
    assert len(set(drawn)) == 5


def test_uniform_and_normal_are_spread_as_they_should() -> None:
    keys = row_keys(0, 0, torch.arange(20_000))
    u, n = uniform(keys, "u", 4, torch.float64), normal(keys, "n", 4, torch.float64)
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert abs(float(u.mean()) - 0.5) < 0.005
    assert abs(float(u.var()) - 1 / 12) < 0.002
    assert torch.corrcoef(u.T).fill_diagonal_(0).abs().max() < 0.02
    assert abs(float(n.mean())) < 0.01
    assert abs(float(n.std()) - 1) < 0.01
    assert torch.isfinite(n).all()
