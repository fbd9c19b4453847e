"""Recipes that ship with the project; `edgepack recipes list` shows them."""
