"""The host side of edgepack."""
