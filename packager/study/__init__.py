"""The recommended order, tried step by step on the user's own model and device: was it worth it?"""
