"""Dealing items evenly at random, for many decks at once."""

from __future__ import annotations

import numpy as np


def deal(rng: np.random.Generator, sizes: np.ndarray, hand: int, hands: np.ndarray) -> np.ndarray:
    """Deal `hands[k]` hands of `hand` items from `sizes[k]` items, for every k.

    Within a hand each item of k appears floor or ceil(hand / sizes[k]) times, and over all hands
    the counts of two items differ by 1 at most.

    Returns:
        int64 `[sum(hands), hand]`: numbers from 0 to sizes[k] - 1, the hands of k = 0 first.
    """
    # Items in excess of the size come as whole sets; what is left of a hand is dealt from decks.
    rest = np.where(hands > 0, hand % sizes, 0)
    cards = _decks(rng, sizes, rest, hands)
    k = np.repeat(np.arange(len(sizes)), hands)
    first = np.cumsum(rest * hands) - rest * hands
    nth = np.arange(len(k)) - (np.cumsum(hands) - hands)[k]
    column = np.arange(hand)
    from_deck = column < rest[k, None]
    position = (first[k] + nth * rest[k])[:, None] + column
    whole_sets = column % sizes[k, None]
    if not len(cards):
        return whole_sets
    return np.where(from_deck, cards[np.where(from_deck, position, 0)], whole_sets)


def _decks(
    rng: np.random.Generator, sizes: np.ndarray, hand: np.ndarray, hands: np.ndarray
) -> np.ndarray:
    """The cards of `hands[k]` hands of `hand[k]` < sizes[k] items, one after the other, every k.

    Each deck is a shuffle of the items; no item comes twice in a hand, not even where a hand
    takes the last cards of a deck and the first of the next. All decks of all k are drawn at
    once: a deck is a shuffle of *positions in the deck before it*, whose first cards are not to
    come from the last ones there. Which items these are is then found by following positions back.
    """
    needed = hand * hands
    count = -(-needed // sizes)  # decks of each k
    if not count.sum():
        return np.empty(0, np.int64)
    deck_k = np.repeat(np.arange(len(sizes)), count)
    nth = np.arange(len(deck_k)) - (np.cumsum(count) - count)[deck_k]
    size = sizes[deck_k]
    begun = nth * size % hand[deck_k]  # cards of a hand that the deck before has dealt
    head = np.where(begun > 0, hand[deck_k] - begun, 0)  # cards that complete that hand

    start = np.cumsum(size) - size
    deck = np.repeat(np.arange(len(size)), size)
    place = np.arange(len(deck)) - start[deck]
    # Shuffle within each deck, the forbidden positions last; its first cards complete the hand.
    forbidden = place >= (size - begun)[deck]
    shuffled = place[np.argsort(2 * deck + forbidden + rng.random(len(deck)))]
    # Shuffle again all but those first cards, so that the forbidden ones may come anywhere after.
    in_head = place < head[deck]
    key = 2 * deck + np.where(in_head, 0.0, 1.0 + rng.random(len(deck)))
    position = shuffled[np.argsort(key, kind="stable")]

    # Follow each position back to the first deck, twice as far at each turn.
    source = np.arange(len(deck))
    later = nth[deck] > 0
    source[later] = (start[deck] - size[deck] + position)[later]
    for _ in range(int(count.max() - 1).bit_length()):
        source = source[source]
    item = position[source]

    # The last deck of each k is dealt only as far as needed.
    return item[(nth * size)[deck] + place < needed[deck_k][deck]]
