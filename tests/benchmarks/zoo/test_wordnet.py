"""Nouns and definitions."""

from benchmarks.zoo.wordnet import glosses


def test_glosses_are_first_definitions_without_the_licence(wordnet):
    assert glosses(wordnet)[:2] == [
        ("entity", "that which is perceived to have its own existence"),
        ("ice cube", "a small cube of frozen water"),
    ]
