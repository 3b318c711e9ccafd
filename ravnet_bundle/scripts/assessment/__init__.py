"""What a mask is worth: its measures, what can be observed without a truth, and the verdict."""

from .judge import Limits, Verdict, judge
from .measures import body_surface_m2, measure
from .observations import observe

__all__ = ["Limits", "Verdict", "body_surface_m2", "judge", "measure", "observe"]
