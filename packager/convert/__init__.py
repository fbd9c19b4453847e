"""Edges of the format graph: one file each, named <result>_from_<source>, found by listing this folder."""
