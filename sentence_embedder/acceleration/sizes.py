"""The sizes of batches for which products are prepared."""

from __future__ import annotations


def rounded_up(tokens: int) -> int:
    """The size to which a batch of so many tokens is filled up.

    oneDNN compiles a product for each number of rows that it meets, which takes half a millisecond and a
    megabyte or two each, kept for the life of the process: there should be few.

    Example:
        >>> rounded_up(9), rounded_up(300), rounded_up(2000)
        (9, 320, 2048)
    """
    tokens = max(1, tokens)  # products are not made for nothing at all
    step = 1 << max(0, (tokens - 1).bit_length() - 4)  # eight sizes from each power of two to the next
    return -(-tokens // step) * step
