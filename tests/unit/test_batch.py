"""Micro-batches and the places of tokens in flat vectors."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_mechanism.rl.batch import Sequences, sequence_means

LENGTHS = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 12)), min_size=1, max_size=30)


def sequences_of(lengths):
    numbers = iter(range(10**6))
    return Sequences([[1] * p for p, _ in lengths], [[next(numbers) for _ in range(r)] for _, r in lengths])


def padded_sizes(sequences, parts):
    return [max(sequences[rows].lengths) * len(sequences[rows]) for rows in parts]


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, tokens=st.integers(1, 120))
def test_micro_batches_hold_every_row_once_and_stay_within_their_size(lengths, tokens):
    sequences = sequences_of(lengths)
    consecutive = list(sequences.micro_batches(tokens))
    balanced = sequences.balanced_micro_batches(tokens)
    assert [row for part in consecutive for row in range(part.start, part.stop)] == list(range(len(lengths)))
    assert sorted(row for rows in balanced for row in rows) == list(range(len(lengths)))
    assert all(rows == sorted(rows) for rows in balanced)
    for parts in (consecutive, balanced):
        sizes = padded_sizes(sequences, parts)
        assert all(size <= tokens or len(sequences[rows]) == 1 for size, rows in zip(sizes, parts, strict=True))
    assert len(balanced) <= len(consecutive)


def test_balanced_micro_batches_are_even_and_pad_little():
    sequences = sequences_of([(1, 1), (1, 19)] * 8)
    assert len(list(sequences.micro_batches(100))) == 4
    balanced = sequences.balanced_micro_batches(100)
    # 8 responses of 20 tokens in two halves rather than 5 and 3, and the short ones with the second.
    assert padded_sizes(sequences, balanced) == [80, 80, 16]
    assert balanced[0] == [1, 3, 5, 7]


def test_balanced_micro_batches_of_one_part_leave_the_order_alone():
    sequences = sequences_of([(3, 1), (1, 4), (2, 2), (4, 1), (1, 2)])
    assert sequences.balanced_micro_batches(10_000) == [[0, 1, 2, 3, 4]]


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, tokens=st.integers(1, 60))
def test_token_index_finds_the_tokens_of_rows_in_the_flat_vector(lengths, tokens):
    sequences = sequences_of(lengths)
    for rows in [*sequences.balanced_micro_batches(tokens), []]:
        index = sequences.token_index(rows)
        assert sequences.targets_N[index].tolist() == sequences[rows].targets_N.tolist()
        assert sequences.sequence_N[index].tolist() == [row for row in rows for _ in sequences.responses[row]]


def test_sequence_means_average_tokens_within_each_response():
    values = torch.tensor([1.0, 3.0, 10.0])
    means = sequence_means(values, torch.tensor([0, 0, 2]), 3)
    assert means[0] == 2
    assert means[1].isnan()
    assert means[2] == 10
