"""Measures of a mask, observations about its quality, and the verdict."""

from .judge import Limits, Verdict, judge
from .measures import body_surface_m2, measure
from .observations import observe

__all__ = ["Limits", "Verdict", "body_surface_m2", "judge", "measure", "observe"]
