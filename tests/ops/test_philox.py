import pytest
import torch

from mfik.ops import _reference

# Known answers of Random123 (Salmon et al. 2011), kat_vectors, philox4x32 10.
KNOWN = [
    ((0x00000000,) * 4, (0x00000000,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_kernel_gives_the_known_answer(native, counter, key, words):
    assert tuple(native.philox(counter, key[0] | key[1] << 32)) == words


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_reference_gives_the_known_answer(counter, key, words):
    assert tuple(int(word) for word in _reference.philox(counter, key[0] | key[1] << 32)) == words


def test_reference_draws_batches_like_the_kernel(native):
    rows = torch.arange(1000)
    words = torch.stack(_reference.philox((rows, 7, 1 << 31, 3), 2**63 - 1), dim=-1)
    assert words.tolist() == [native.philox((i, 7, 1 << 31, 3), 2**63 - 1) for i in range(1000)]
