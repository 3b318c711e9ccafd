"""Synthetic CTs of the trunk with exact liver and tumour labels: seeded and deterministic, without patient data."""

from .scanner import Phantom, make_decathlon, make_phantom, save_phantom

__all__ = ["Phantom", "make_decathlon", "make_phantom", "save_phantom"]
